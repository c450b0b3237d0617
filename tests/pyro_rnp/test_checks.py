"""What images have to be, for all that takes images."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch._subclasses.fake_tensor import FakeTensorMode

from inference.data import ImageSet
from inference.evaluation.bounds import importance_weighted_bound
from inference.evaluation.completion import completion_metrics
from inference.evaluation.latent_space import collect_programs
from inference.evaluation.metrics import evaluate
from inference.evaluation.one_shot import class_log_likelihood, exemplars
from inference.evaluation.part_dictionary import collect_parts
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.evaluation.segmentation import segmentation_metrics
from inference.posterior import intervene, query
from pyro_rnp import RNP
from pyro_rnp.checks import as_images, observed
from pyro_rnp.class_model import SameClass
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("unchecked")
SEEN = torch.arange(8).expand(8, 8) < 4


def labelled(images):
    return ImageSet(images, torch.zeros(len(images), dtype=torch.long))


def step(rnp, images):
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO())
    return torch.tensor(svi.step(images))


def numbers(found):
    """Dictionaries of figures as one tensor, but for what is timed."""
    rows = [numbers(v) if isinstance(v, dict) else v for k, v in found.items() if k != "seconds"]
    return torch.cat([torch.as_tensor(v, dtype=torch.double).flatten() for v in rows])


ASK = {"method": "importance", "num_samples": 5}
USES = {
    "parse": lambda rnp, x: rnp.parse(x).canvas,
    "model": lambda rnp, x: rnp.model(x).canvas.new_ones(()),  # it draws from its prior
    "guide": lambda rnp, x: rnp.guide(x),
    "svi": step,
    "query": lambda rnp, x: query(rnp, x, mask=SEEN, **ASK).canvas,
    "query by svi": lambda rnp, x: query(rnp, x, method="svi", steps=2, num_samples=9).canvas,
    "importance_weighted_bound": lambda rnp, x: importance_weighted_bound(rnp, x, 3),
    "completion": lambda rnp, x: numbers(completion_metrics(rnp, x, SEEN, x, ("importance",))),
    "collect": lambda rnp, x: collect_parts(rnp, x).canvases,
    "evaluate images": lambda rnp, x: numbers(evaluate(rnp, x, train=x, particles=2)),
    "reconstruction_metrics": lambda rnp, x: numbers(reconstruction_metrics(rnp, x)),
    "class_log_likelihood": lambda rnp, x: class_log_likelihood(rnp, x, x, num_samples=2),
    "exemplars": lambda rnp, x: exemplars(rnp, x[:1], 3).canvas,
    "intervene": lambda rnp, x: (
        intervene(rnp, rnp.parse(x), {"a/0": torch.tensor([0.4, 0.4, 0, 0, 0, 0])}).canvas
    ),
    "class": lambda rnp, x: SameClass(rnp, 2).guide(x),
}
SETS = {
    "evaluate": lambda rnp, x: numbers(evaluate(rnp, labelled(x))),
    "collect_programs": lambda rnp, x: collect_programs(rnp, labelled(x)).canvases,
    "segmentation_metrics": lambda rnp, x: numbers(
        segmentation_metrics(
            rnp,
            ImageSet(x, torch.zeros(4).long(), torch.zeros(4, 2, 8, 8).long()),
            "importance",
            num_samples=5,
        )
    ),
}
KINDS = {
    "float64": lambda x: x.double(),
    "half": lambda x: x.half(),
    "array": lambda x: x.numpy(),
    "array of float64": lambda x: x.double().numpy(),
    "array of another byte order": lambda x: x.numpy().astype(">f4"),
    "mirrored array": lambda x: np.flip(x.flip(-1).numpy(), -1),
    "without channels": lambda x: x.squeeze(1),
    "array with channels last": lambda x: x.movedim(1, -1).numpy(),
}


@pytest.fixture
def rnp():
    return RNP(tiny(prior="types")).eval()


@pytest.fixture
def images():
    """Of values that half precision has too."""
    return torch.randint(0, 9, (4, 1, 8, 8)) / 8


def ask(use, rnp, images):
    torch.manual_seed(0)
    found = use(rnp, images)
    return found.detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*USES, *SETS])
def test_all_that_takes_images_takes_them_alike(name, kind, rnp, images):
    if name in SETS and "array" in kind:
        pytest.skip("a set holds tensors")
    use = {**USES, **SETS}[name]
    assert torch.equal(ask(use, rnp, images), ask(use, rnp, KINDS[kind](images)))


def bytes_of(images):
    return (255 * images).round().byte()


@pytest.mark.parametrize("name", USES)
def test_bytes_are_read_as_shares_of_255(name, rnp, images):
    floats = bytes_of(images).float() / 255
    wanted = ask(USES[name], rnp, floats)
    for same in (bytes_of(images), bytes_of(images).squeeze(1).numpy(), bytes_of(images).numpy()):
        assert torch.equal(ask(USES[name], rnp, same), wanted)


def test_truth_values_are_zeros_and_ones(rnp, images):
    wanted = rnp.parse(images.round()).canvas
    for same in (images.round().bool(), images.round().bool().squeeze(1).numpy()):
        assert torch.equal(rnp.parse(same).canvas, wanted)


@pytest.mark.parametrize("kind", [bytes_of, torch.Tensor.double, torch.Tensor.numpy])
def test_colours_may_come_last(kind):
    rnp, images = RNP(tiny(channels=3)), torch.rand(5, 3, 8, 8)
    last = kind(images.movedim(1, -1).contiguous())
    assert torch.equal(as_images(last, rnp), as_images(kind(images), rnp))
    eight = RNP(tiny(channels=8))
    assert torch.equal(as_images(torch.eye(8).expand(1, 8, 8, 8), eight)[0, 0], torch.eye(8))


@pytest.mark.parametrize("name", [*USES, *SETS])
def test_a_model_in_float64_is_asked_as_one_in_float32(name, rnp, images):
    use = {**USES, **SETS}[name]
    single = ask(use, rnp, images)
    double = RNP(rnp.config, name="double").eval().double()
    double.load_state_dict(rnp.state_dict())
    found = [ask(use, double, x) for x in (images, images.double())]
    assert torch.equal(*found)
    assert found[0].shape == single.shape


def test_chains_run_in_float64():
    rnp, images = RNP(tiny(steps=(1,))).eval().double(), torch.rand(1, 1, 8, 8)
    found = query(rnp, images, method="nuts", steps=2, num_samples=4, warmup=1, chains=1)
    assert (found.canvas.dtype, found.weights.dtype) == (torch.float64, torch.float64)


def test_a_question_without_an_image_is_answered_in_float64(rnp):
    found = query(rnp.double(), given={"z": torch.zeros(3)}, **ASK)
    assert (found.mean("z").dtype, found.log_evidence.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (torch.zeros(3, 1, 8, 9), ValueError, r"\(N, 1, 8, 8\), got \(3, 1, 8, 9\)\.$"),
        (torch.zeros(3, 8, 9), ValueError, r"\(N, 1, 8, 8\), got \(3, 8, 9\)\.$"),
        (torch.zeros(8, 8, 1), ValueError, r"got \(8, 8, 1\); images\[None\] has a batch of one"),
        (np.zeros((8, 8)), ValueError, r"got \(8, 8\); images.reshape\(-1, 1, 8, 8\) has it"),
        (torch.zeros(0, 1, 8, 8), ValueError, "at least one image"),
        (
            torch.zeros(3, 1, 8, 8).long(),
            ValueError,
            r"floats in \[0, 1\], .* got torch.int64",
        ),
        (np.zeros((3, 1, 8, 8), np.uint16), ValueError, r"or truth values, got uint16\.$"),
        (
            np.ones((3, 8, 8), np.uint8),
            ValueError,
            "but the brightest pixel here is 1",
        ),
        (torch.full((3, 1, 8, 8), 255.0), ValueError, "in \\[0, 1\\], got values from 255 to 255"),
        (torch.full((3, 1, 8, 8), -1e-3), ValueError, "in \\[0, 1\\], got values from -0.001"),
        (torch.full((3, 1, 8, 8), torch.nan), ValueError, r"all of image 0 are missing \(NaN\)\.$"),
        (np.full((3, 1, 8, 8), np.inf), ValueError, "finite"),
        ([torch.zeros(1, 8, 8)], TypeError, "a tensor or a NumPy array, got list; torch.stack"),
    ],
)
def test_what_is_refused(wrong, error, says, rnp):
    with pytest.raises(error, match=says):
        as_images(wrong, rnp)


def test_colours_are_no_images_in_a_row():
    with pytest.raises(ValueError, match=r"got \(6, 8, 8\)\.$"):
        as_images(torch.zeros(6, 8, 8), RNP(tiny(channels=3)))
    with pytest.raises(ValueError, match=r"images.reshape\(-1, 3, 8, 8\) has it"):
        as_images(torch.zeros(3, 8, 8), RNP(tiny(channels=3)))


@pytest.mark.parametrize("name", [*USES, *SETS])
@pytest.mark.parametrize("scale", [255, -1])
def test_all_that_takes_images_refuses_another_range(name, scale, rnp, images):
    with pytest.raises(ValueError, match="images must lie in"):
        ask({**USES, **SETS}[name], rnp, scale * images)


def test_pyro_s_validation_says_whether_its_callables_look(rnp, images):
    noisy = rnp.model.likelihood(images).sample()
    with pyro.validation_enabled(False):
        assert torch.equal(observed(noisy, rnp), noisy)
        step(rnp, noisy)
    with pytest.raises(ValueError, match="must lie in"):
        observed(noisy, rnp)


def test_pixels_on_a_device_are_not_waited_for(rnp):
    there = torch.empty(3, 1, 8, 8, device="meta")
    assert observed(there, rnp.to("meta")).device.type == "meta"


def test_a_cast_reads_no_pixels():
    with FakeTensorMode(), pyro.validation_enabled(False):
        rnp = RNP(tiny())
        assert observed(torch.rand(3, 1, 8, 8).double(), rnp).dtype == torch.float32


def test_gradients_flow_back_to_the_images(rnp, images):
    given = images.double().requires_grad_()
    rnp.parse(given, grad=True).canvas.sum().backward()
    assert given.grad.abs().sum() > 0


def test_what_is_right_already_is_not_copied(rnp, images):
    assert as_images(images, rnp).data_ptr() == images.data_ptr()


def test_an_array_is_copied(rnp, images):
    array = images.numpy()
    found = as_images(array, rnp)
    array[:] = 0
    assert found.max() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_refused_in_one_sentence(dtype, images):
    rnp = RNP(tiny()).to(dtype)
    for use in (rnp.parse, rnp.model, rnp.guide):
        with pytest.raises(ValueError, match="does not run by itself; .* torch.autocast"):
            use(images)
