"""Score a trained model on a data set."""

import json

from inference.cli import add_data_root, add_run, parser
from inference.evaluation import score_run


def main() -> None:
    """Score a trained model and print JSON."""
    arguments = parser(
        "Score a trained model: means over images, as JSON.",
        "data, split and num say which images are scored; names of scores begin with the split. "
        "test_sse: squared error summed over an image's pixels, of one posterior sample; "
        "test_sse_mean: at the posterior's centre; test_kl, test_elbo, test_iw_bound: in nats, "
        "with _error the standard error over images; test_explained: the share of the images' "
        "squared intensity; test_sse_blank, test_sse_mean_image, test_explained_mean_image: of a "
        "blank canvas, and of the mean of the data set's training images, for the same images; "
        "test_canvas_variance_ratio: the canvases' variance between images over that of the images "
        "(0: the same canvas for all); test_action_spread: how far parts move between images, as a "
        "share of the range of their actions (0: not at all); test_ari_parts, test_ari_subparts: "
        "how well the parts at the centre agree with true ones, with _floor that of k-means on "
        "positions. completion: squared error of hidden pixels by method, beside a blank image "
        "(blank), the mean (mean_image) and the nearest training image, the share of images whose "
        "posterior is reliable, and seconds an image, with --log_likelihood true also log p(hidden "
        "pixels given the seen ones) in nats. "
        "calibration and agreement: of images drawn from the model, the share of true numbers of z "
        "and of hidden pixels in their 90 % intervals, and p of uniform ranks; and the differences "
        "of trusted answers from long runs, squared, in units of their stated errors. "
        "segmentation: as test_ari, but by the posterior probability of each part.",
    )
    add_run(arguments)
    arguments.add_function_arguments(score_run, skip={"run", "data_root"})
    add_data_root(arguments)
    print(json.dumps(score_run(**vars(arguments.parse_args())), indent=2))
