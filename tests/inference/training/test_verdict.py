"""The sentence at the end of training tells a model that ignores images from one that does not."""

import pytest

from inference.training.diagnostics import verdict


def told(sse, ratio, blank=128.0, mean_image=35.4):
    return verdict(
        {
            "test_sse": sse,
            "test_explained": 1 - sse / blank,
            "test_sse_blank": blank,
            "test_sse_mean_image": mean_image,
            "test_explained_mean_image": 1 - mean_image / blank,
            **({} if ratio is None else {"test_canvas_variance_ratio": ratio}),
        }
    )


def test_a_model_that_ignores_the_image_is_named_as_such():
    said = told(49.4, 4e-6)
    assert "explains 61.4 % of the test images' squared intensity (squared error 49.4" in said
    assert "the mean training image 72.3 % (35.4), a blank canvas 0 % (128.0)" in said
    assert "ignores the image" in said
    assert "Try more training (--minutes, --epochs)" in said
    assert "beat" not in said


def test_a_model_that_learned_is_better_than_both():
    said = told(10.1, 0.8)
    assert "beats both, and its canvases differ between images" in said
    assert "more training" not in said


@pytest.mark.parametrize(
    ("sse", "mean_image", "than"), [(60, 35.4, "mean training image"), (140, 150, "blank canvas")]
)
def test_a_model_whose_canvases_differ_may_still_be_no_better(sse, mean_image, than):
    said = told(sse, 0.1, mean_image=mean_image)
    assert "canvases differ between images, but" in said
    assert f"does not beat {'the ' * (than[0] == 'm')}{'a ' * (than[0] == 'b')}{than}" in said


def test_of_one_image_nothing_is_said_of_differences():
    for sse, words in ((49.4, "The model does not beat the mean"), (10.1, "The model beats both.")):
        said = told(sse, None)
        assert words in said
        assert "differ" not in said
        assert "ignores" not in said
