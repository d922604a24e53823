"""Arguments behind a script's name: read by the types of the defaults of its `build`."""

import pytest

from wiu_pyro.errors import ModelError
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.nn.script_arguments import declared_arguments, split_arguments
from wiu_pyro.nn.scripts import load_model_script

SCRIPT = '''"""A network of some width."""
from torch import nn

import wiu_pyro as wiu

AUGMENT = wiu.datasets.FlipAndCrop(padding=1)
NORMALISE = True


def build(num_classes, in_channels, image_size, *, hidden=3, gain=2.0, bias=True, kind="relu", other=None):
    inputs = in_channels * image_size[0] * image_size[1]
    layers = [nn.Flatten(), nn.Linear(inputs, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, num_classes)]
    return wiu.nn.BayesianNetwork(nn.Sequential(*layers), prior=wiu.nn.FanInNormal(gain=gain))
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "wide.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("digits_mlp", "digits_mlp", {}),
        ("folder/net.py:depth=3", "folder/net.py", {"depth": "3"}),
        ("C:net.py:kind=a-b:width=1e-1", "C:net.py", {"kind": "a-b", "width": "1e-1"}),
    ],
)
def test_what_stands_behind_a_name_is_taken_apart(text, name, arguments):
    assert split_arguments(text) == (name, arguments)


def test_arguments_reach_the_network_by_their_types(script):
    found = load_model_script(f"{script}:bias=no:hidden=5:gain=1")
    assert found.arguments == {"hidden": 5, "gain": 1.0, "bias": False}
    assert found.title == "wide:hidden=5:gain=1.0:bias=false"
    model = found.build(4, 1, (2, 2))
    assert isinstance(model, BayesianNetwork)
    assert {site: model.net.get_buffer(site).shape for site in model.site_priors} == {
        "1.weight": (5, 4),
        "3.weight": (4, 5),
        "3.bias": (4,),
    }
    assert model.prior.gain == 1


def test_order_and_spelling_of_arguments_leave_one_title(script):
    titles = {load_model_script(f"{script}:{text}").title for text in ("hidden=5:bias=0", "bias=false:hidden=05")}
    assert titles == {"wide:hidden=5:bias=false"}


def test_arguments_are_those_with_a_plain_default(script):
    declared = declared_arguments(load_model_script(script).function)
    assert declared == {"hidden": 3, "gain": 2.0, "bias": True, "kind": "relu"}


def test_a_script_says_how_its_images_are_changed(script):
    found = load_model_script(script)
    assert (repr(found.augment), found.normalise) == ("FlipAndCrop(padding=1, flip=True)", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hiden=5", "build of .*wide.py has no argument 'hiden'. Did you mean 'hidden'"),
        ("hidden=many", "argument 'hidden' must be a whole number, but is 'many'"),
        ("bias=perhaps", "argument 'bias' must be true or false, but is 'perhaps'"),
        ("hidden=1:hidden=2", "has 'hidden' twice"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused(script, text, said):
    with pytest.raises(ModelError, match=said):
        load_model_script(f"{script}:{text}")


def test_a_script_without_arguments_says_so():
    with pytest.raises(ModelError, match="has no argument 'depth'. Leave it out: this script takes none"):
        load_model_script("digits_mlp:depth=2")


@pytest.mark.parametrize(("line", "said"), [("AUGMENT = 3", "AUGMENT in"), ("NORMALISE = 1", "NORMALISE in")])
def test_constants_of_another_kind_are_refused(tmp_path, line, said):
    path = tmp_path / "net.py"
    path.write_text(f"{line}\n\ndef build(num_classes, in_channels, image_size):\n    pass\n")
    with pytest.raises(ModelError, match=said):
        load_model_script(path)
