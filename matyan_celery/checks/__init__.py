"""What each dependency says when it is asked, in a sentence, with what to do. Each answer comes within seconds."""
