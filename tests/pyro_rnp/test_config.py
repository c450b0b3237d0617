"""Configurations: presets, round trips, and refusals in one sentence."""

import json

import pytest

from pyro_rnp import PRESETS, RNPConfig, coverage


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    config = RNPConfig.preset(name)
    assert RNPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_paper_s_numbers():
    mnist = RNPConfig.preset("mnist")
    assert (mnist.depth, mnist.steps, mnist.program_size, mnist.patch_size) == (2, (4, 4), 32, 28)
    assert (mnist.hypernet_layers, mnist.hypernet_units, mnist.network_units) == (6, 64, 64)
    assert (mnist.encoder_blocks, mnist.encoder_channels, mnist.encoder_layers) == (5, 32, 4)
    assert (mnist.feedback, mnist.pixel_layers) == ("canvas", "generated")
    assert RNPConfig.preset("fashion") == mnist
    assert RNPConfig.preset("omniglot").program_size == 96


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": ()}, "steps must be one or more positive numbers"),
        ({"steps": (4, 0)}, "steps must be one or more positive numbers"),
        ({"program_size": 0}, "program_size must be at least 1, got 0"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": float("nan")}, "sigma must be finite"),
        ({"part_weight": -1.0}, "part_weight must be finite and not negative"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"program_scale": 0.0}, "program_scale must be positive"),
        ({"stochastic": "some"}, "stochastic must be one of none, programs, actions, both, or 2"),
        ({"stochastic": "none,both,both"}, "2 of them with commas between, got 'none,both,both'"),
        ({"stochastic": "actions", "max_shear": 0.0}, "Random actions need room"),
        ({"prior": "mixtur"}, r"no prior 'mixtur' \(did you mean mixture\?\); choose from normal"),
        ({"prior": "mixture:k=3"}, "'mixture' has no option 'k'; it has components"),
        ({"guide": "map:x=1"}, "'map' has no option 'x'; it has none"),
        ({"guide": "refined:steps"}, "'refined:steps' cannot be read; write name:option=value"),
        ({"max_scale": 1.5}, "0 < min_scale < max_scale < 1"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        RNPConfig(**changes)


@pytest.mark.parametrize("field", ["feedback", "pixel_layers", "hypernet"])
def test_an_unknown_choice_is_refused_without_the_type_checks_too(field):
    config = RNPConfig()
    object.__setattr__(config, field, "none")
    with pytest.raises(ValueError, match=f"{field} must be one of .* got 'none'"):
        config.__post_init__()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no preset 'minst'; choose from mnist"):
        RNPConfig.preset("minst")
    with pytest.raises(ValueError, match="unknown fields: size"):
        RNPConfig.from_dict({"size": 3})


@pytest.mark.parametrize("name", PRESETS)
def test_small_grey_images_have_the_preset_itself(name):
    assert RNPConfig.for_images(28, preset=name) == RNPConfig.preset(name)
    assert RNPConfig.for_images(28, 1, name, steps=(3,)) == RNPConfig.preset(name, steps=(3,))


@pytest.mark.parametrize("size", [16, 20, 28, 32, 40, 50, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("steps", [(4, 4), (5,), (3, 3, 3), (2, 6)])
def test_the_parts_of_other_images_can_cover_them(size, channels, steps):
    config = RNPConfig.for_images(size, channels, steps=steps)
    assert (config.image_size, config.channels, config.steps) == (size, channels, steps)
    if (size, channels) != (28, 1):
        assert coverage(config) == (1.0,) * len(steps)
        assert 2 < size / 2**config.encoder_halvings <= 4


def test_what_is_given_is_not_chosen():
    given = {"max_scale": 0.5, "patch_size": 9, "encoder_halvings": 2, "encoder_gain": 1.2}
    given |= {"encoder_colour": False, "sigma": 0.2}
    config = RNPConfig.for_images(64, 3, **given)
    assert config == RNPConfig.preset("fast", image_size=64, channels=3, **given)
    with pytest.raises(ValueError, match="There is no preset 'quick'"):
        RNPConfig.for_images(64, preset="quick")
