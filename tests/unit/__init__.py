"""Parts of the product by themselves, without servers."""
