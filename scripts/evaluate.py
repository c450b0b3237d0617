"""Score a trained model on a data set."""

import json
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from inference.cli import add_data_root, add_run, parser, run
from inference.data import DataName
from inference.evaluation.completion import completion
from inference.evaluation.metrics import evaluate, kept_bounds
from inference.evaluation.segmentation import posterior_segmentation
from inference.posterior import Method, Side, half_mask
from inference.run import Run
from inference.system import keep_large_blocks


def main() -> None:
    arguments = parser(
        "Score a trained model: means over images, as JSON.",
        "data, split and num say which images are scored; names of scores begin with the split. "
        "test_sse: squared error summed over an image's pixels, of one posterior sample; "
        "test_sse_mean: at the posterior's centre; test_kl, test_elbo, test_iw_bound: in nats, "
        "with _error the standard error over images; test_explained: the share of the images' "
        "squared intensity; test_sse_blank, test_sse_mean_image, test_explained_mean_image: of a "
        "blank canvas, and of the mean of the data set's training images, for the same images; "
        "test_canvas_variance_ratio: the canvases' variance between images over that of the images "
        "(0: the same canvas for all); test_ari_parts, test_ari_subparts: how well the parts at "
        "the centre agree with true ones, with _floor that of k-means on positions. completion: "
        "squared error of hidden pixels by method, beside no ink (blank), the mean (mean_image) "
        "and the nearest training image, "
        "the share of answers that say they are to be trusted, and seconds an image. "
        "segmentation: as test_ari, but by the posterior probability of each part.",
    )
    add_run(arguments)
    arguments.add_argument("--data", type=DataName | None, help="data set; by default the run's")
    split = Literal["train", "validation", "test"]
    arguments.add_argument("--split", type=split, default="test", help="which images")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the posterior samples")
    arguments.add_argument(
        "--guide",
        type=str | None,
        help="a guide in place of the run's that has its parameters, as refined:steps=50 for one "
        "that is diagonal: gradient steps on each image's own bound",
    )
    arguments.add_argument(
        "--particles",
        type=NonNegativeInt,
        default=0,
        help="samples an image of the importance-weighted bound (5000 in most papers); 0: none",
    )
    keep = "folder for the bounds so far, from which the same command goes on if interrupted"
    arguments.add_argument("--keep", type=str | None, help=keep)
    arguments.add_argument("--num", type=PositiveInt | None, help="images to score; all if none")
    arguments.add_argument(
        "--hide",
        type=Side | None,
        help="hide this half and add the squared error of its pixels (completion), as --methods "
        "fill it in, and of the nearest training image; svi takes half a second an image, so "
        "choose --num",
    )
    arguments.add_argument(
        "--methods",
        type=list[Method],
        default=["guide", "importance", "svi"],
        help="how to fill in what is hidden, of guide, importance, svi and nuts, as [guide,svi]",
    )
    arguments.add_argument(
        "--segment",
        type=Method | None,
        help="add how well the parts that most probably made each pixel agree with the true ones "
        "(segmentation), by this method of query; for --data strokes",
    )
    add_data_root(arguments)
    args = arguments.parse_args()
    trained = Run(args.run)
    data = args.data or trained.data_name
    splits, rnp = trained.data(data, args.data_root), trained.load(args.guide)
    images = getattr(splits, args.split)[: args.num]
    found: dict = {}  # first what may be refused
    if args.hide is not None:
        seen, train = half_mask(args.hide, rnp.config.image_size), splits.train.images
        found["completion"] = completion(
            rnp, images.images, seen, train, args.methods, seed=args.seed
        )
    if args.segment is not None:
        found["segmentation"] = posterior_segmentation(rnp, images, args.segment, seed=args.seed)
    what = [args.data, args.split, args.num, args.particles, args.seed, args.guide]
    keep = None if args.keep is None else kept_bounds(args.keep, args.run, what)
    if args.particles:
        keep_large_blocks()
    how = {"seed": args.seed, "particles": args.particles, "keep": keep, "train": splits.train}
    scores = {f"{args.split}_{k}": v for k, v in evaluate(rnp, images, **how).items()}
    of = {"data": data, "split": args.split, "num": len(images)}
    print(json.dumps(of | scores | found, indent=2))


if __name__ == "__main__":
    run(main)
