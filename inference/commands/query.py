"""Query a trained model for the posterior given pixels or parts."""

from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from inference.cli import add_images, add_out, add_run, chosen_images, named_images, parser, reading
from inference.data.image_files import read_image, warn_unexplained
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import posterior_figure
from inference.posterior import TOLERANCE, Side, half_mask, query, read_sites
from pyro_rnp import load
from pyro_rnp.parse_tree import COUNTING

NUMBERS = (
    ("num_samples", 200, "samples of each image"),
    ("steps", 200, "steps of svi, smc, hmc and nuts"),
    ("warmup", 100, "steps that hmc and nuts adapt in"),
    ("chains", 4, "chains of hmc and nuts"),
    ("keep", 200, "samples of each image in samples.npz; more are thinned by their weights"),
)


def main() -> None:
    """Answer a query with a picture, a JSON file and the samples."""
    arguments = parser(
        "Query a trained model for the posterior given pixels, parts, both or nothing.",
        "The folder holds query.png, a column an image; query.json: notes, log evidence (nats) "
        "and effective samples of each image, and mean and standard deviation of every site; and "
        "samples.npz: samples of every site (S, N, ...; see --keep), their weights (S, N), and the "
        "probability that each part made a pixel (N, parts + 1, H, W), last that none did. Parts "
        "count from 0: a/0 is the action of the first part, z/0/2 the program of its third "
        "sub-part. Examples: complete digits whose right half is hidden: pyro-rnp query RUN "
        "--hide right; draw digits whose first part is where that of a.png is: pyro-rnp parse RUN "
        'a.png, then pyro-rnp query RUN --given given.json with {"a/0": [six numbers of the '
        "parse]}.",
    )
    add_run(arguments)
    add_images(arguments)
    arguments.add_argument(
        "--answers", type=PositiveInt | None, help="how many, without images; by default 8, or "
        "one for each of several values of a part that is given"
    )  # fmt: skip
    arguments.add_argument("--hide", type=Side | None, help="half that is hidden")
    arguments.add_argument("--mask", type=str | None, help="image file: white where it is seen")
    arguments.add_argument("--given", type=str | None, help="JSON file of known sites, see below")
    arguments.add_argument(
        "--method", type=str, default="smc", help="smc: particles taken to the posterior over "
        "temperatures, in islands that tell the error, as smc:islands=8; guide: samples of the "
        "guide; importance: the same, weighted; svi: a normal fitted to each image, weighted; "
        "hmc and nuts: Markov chains, of each image by itself and of all as one; or your own"
    )  # fmt: skip
    arguments.add_argument(
        "--masked_guide", type=bool, default=False, help="start from the guide that saw masks"
    )
    for name, default, text in NUMBERS:
        arguments.add_argument(f"--{name}", type=PositiveInt, default=default, help=text)
    arguments.add_argument(
        "--tolerance", type=PositiveFloat, default=TOLERANCE, help="standard deviation of "
        "a determined site around its given value, as a share of the range of its numbers"
    )  # fmt: skip
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    add_out(arguments, "answers")
    args = arguments.parse_args()
    if args.mask is not None and args.hide is not None:
        raise ValueError("Give --mask or --hide, not both.")
    unused_folder(args.out)
    rnp, mask = load(args.run, masked_guide=args.masked_guide), None
    images = chosen_images(args, rnp.config, needed=bool(args.mask or args.hide))
    if args.mask is not None:
        white = read_image(args.mask, rnp.config, reading(args)["resize"], invert=False)
        mask = white.mean(0) >= 0.5
    elif args.hide is not None:
        mask = half_mask(args.hide, rnp.config.image_size)
    given = {} if args.given is None else read_sites(Path(args.given))
    several = images is not None or any(value.ndim == 2 for value in given.values())
    posterior = query(
        rnp, images, given=given, mask=mask, method=args.method, num_samples=args.num_samples,
        num_images=args.answers or (None if several else 8), steps=args.steps, warmup=args.warmup,
        chains=args.chains, tolerance=args.tolerance, seed=args.seed,
    )  # fmt: skip
    out = new_folder(args.out)
    seen = None if mask is None else mask.expand(images.shape)
    picture = out / f"query.{args.format}"
    posterior_figure(posterior, picture, images, seen, given=given)
    rows = [posterior.to_dict(i) for i in range(len(posterior.log_evidence))]
    levels = range(1, rnp.config.depth + 1)
    chances = {f"parts_{depth}": posterior.part_probabilities(depth) for depth in levels}
    many = len(posterior.weights) > args.keep
    kept = posterior.draw(args.keep, args.seed) if many else posterior
    arrays: dict[str, Any] = {**kept.samples, "weights": kept.weights, **chances}
    np.savez_compressed(out / "samples.npz", **{k: v.cpu().numpy() for k, v in arrays.items()})
    found = {"notes": posterior.notes, "method": posterior.method, "parts": COUNTING}
    write_json(out / "query.json", {**found, "images": rows})
    if images is not None and not given:
        warn_unexplained(named_images(args), images, posterior.mean("canvas"), mask)
    print(*posterior.notes, picture, sep="\n")
