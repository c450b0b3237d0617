"""Query a trained model for the posterior given pixels or parts."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt

from inference.cli import add_images, add_out, add_run, chosen_images, named_images, parser, reading
from inference.data.image_files import read_image, warn_unexplained
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import posterior_figure
from inference.posterior import TOLERANCE, Side, half_mask, query, read_sites
from pyro_rnp import load
from pyro_rnp.parse_tree import COUNTING


def main() -> None:
    """Answer a query with a picture, a JSON file and the samples."""
    arguments = parser(
        "Query a trained model for the posterior given pixels, parts, both or nothing.",
        "The folder holds query.png, a column an image; query.json: notes, log evidence (nats) "
        "and effective samples of each image, and mean and standard deviation of every site; and "
        "samples.npz: samples of every site (S, N, ...; see --keep), their weights (S, N), and the "
        "probability that each part made a pixel (N, parts + 1, H, W), last that none did. "
        "Parts count from 0: "
        "a/0 is the action of the first part, z/0/2 the program of its third sub-part. "
        "Examples: complete digits whose right half is hidden: pyro-rnp query RUN "
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
    arguments.add_argument(
        "--given", type=str | None, help="JSON file: sites, as a/0 of the "
        "first part, to lists of numbers"
    )  # fmt: skip
    arguments.add_argument(
        "--method",
        type=str,
        default="smc",
        help="smc: particles taken to the posterior over temperatures, in islands that tell the "
        "error, as smc:islands=8; guide: samples of the guide; importance: the same, weighted; "
        "svi: a normal fitted to each image, weighted; hmc and nuts: Markov chains, of each image "
        "by itself and of all as one; or an engine that PYRO_RNP_PIECES adds",
    )
    arguments.add_argument(
        "--masked_guide", type=bool, default=False, help="take the guide that has seen masks, "
        "where one lies beside the weights, as that of mnist: the proposal for hidden pixels"
    )  # fmt: skip
    arguments.add_argument("--num_samples", type=PositiveInt, default=200, help="of each image")
    arguments.add_argument("--steps", type=PositiveInt, default=200, help="of svi, smc, hmc, nuts")
    arguments.add_argument("--warmup", type=PositiveInt, default=100, help="of hmc and nuts")
    arguments.add_argument("--chains", type=PositiveInt, default=4, help="of hmc and nuts")
    arguments.add_argument(
        "--tolerance", type=PositiveFloat, default=TOLERANCE, help="standard deviation of "
        "a determined site around its given value, as a share of the range of its numbers"
    )  # fmt: skip
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    arguments.add_argument(
        "--keep", type=PositiveInt, default=200, help="of more samples of an image, so many are "
        "drawn by weight for samples.npz; query.json is of all"
    )  # fmt: skip
    add_out(arguments, "answers")
    args = arguments.parse_args()
    if args.mask is not None and args.hide is not None:
        raise ValueError("Give --mask or --hide, not both.")
    unused_folder(args.out)
    rnp, mask = load(args.run, masked_guide=args.masked_guide), None
    hidden = args.mask is not None or args.hide is not None
    images = chosen_images(args, rnp.config, needed=hidden)
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
    samples: Any = posterior.samples
    weights = posterior.weights
    if len(weights) > args.keep:
        drawn, weights = posterior.sample(args.keep, args.seed).sites(), weights[: args.keep]
        samples = {name: value.unflatten(0, weights.shape) for name, value in drawn.items()}
        weights = torch.full_like(weights, 1 / args.keep)
    arrays: dict[str, Any] = {**samples, "weights": weights, **chances}
    np.savez_compressed(out / "samples.npz", **{k: v.cpu().numpy() for k, v in arrays.items()})
    found = {"notes": posterior.notes, "method": posterior.method, "parts": COUNTING}
    write_json(out / "query.json", {**found, "images": rows})
    if images is not None and not given:
        warn_unexplained(named_images(args), images, posterior.mean("canvas"), mask)
    print(*posterior.notes, picture, sep="\n")
