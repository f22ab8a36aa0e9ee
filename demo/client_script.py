"""What a person's own training script does: a run logged with the stock ``matyan-client``.

`make demo UI=1` says how to start it: on the stock packages' Python, the addresses of frontier and backend in the
environment. It imports nothing of ours.
"""

from __future__ import annotations

import argparse
import math
import random
import time

from matyan_client import Distribution, Image, Run, Text
from PIL import Image as Picture


def main() -> None:
    """Log one run: parameters, a tag, metrics in contexts, lines, a log record, an image and an artifact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds between steps, so that there is time to look"
    )
    options = parser.parse_args()
    run = Run(experiment="by hand")
    run.name = "client script"
    run["hparams"] = {"lr": 0.01, "steps": options.steps, "optimizer": {"name": "sgd", "momentum": 0.9}}
    run.add_tag("by-hand")
    run.log_info("started", steps=options.steps)
    for step in range(options.steps):
        loss = math.exp(-step / 60) + random.uniform(0, 0.05)
        run.track(loss, name="loss", step=step, context={"subset": "train"})
        run.track(1 - loss / 2, name="accuracy", step=step, context={"subset": "train"})
        if step % 20 == 0:
            run.track(1.1 * loss, name="loss", step=step, context={"subset": "val"})
            run.track(Distribution([random.gauss(0, 1 + loss) for _ in range(200)]), name="weights", step=step)
            print(f"step {step}: loss {loss:.3f}")
        time.sleep(options.pause)
    run.track(Image(_draw(), caption="what it saw"), name="samples", step=0)
    run.track(Text(f"done after {options.steps} steps"), name="summary", step=0)
    run.log_artifact(__file__, name="script.py")
    run.close()
    print(f"logged run {run.hash}")


def _draw() -> Picture.Image:
    picture = Picture.new("RGB", (64, 64))
    picture.putdata([(4 * x, 4 * y, 255 - 2 * (x + y)) for y in range(64) for x in range(64)])
    return picture


if __name__ == "__main__":
    main()
