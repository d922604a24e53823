"""Model scripts: found by name and path, and every way one can be wrong is named with its line."""

import pytest
from pyro.nn import PyroModule

import wiu_pyro.nn.scripts as scripts
from wiu_pyro.errors import ModelError, OutputError, PriorError
from wiu_pyro.nn.scripts import copy_model, load_model_script, shipped_models

GOOD = '''"""One layer.

More about it.
"""
from torch import nn
from wiu_pyro.nn import BayesianNetwork

DATA = "mnist"
EPOCHS = 3


def build(num_classes, in_channels, image_size):
    height, width = image_size
    return BayesianNetwork(nn.Sequential(nn.Flatten(), nn.Linear(in_channels * height * width, num_classes)))
'''


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.py"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def test_script_is_read_with_what_it_says_about_itself(write):
    path = write(GOOD)
    script = load_model_script(path)
    assert (script.path, script.name, script.about) == (path, "mine", "One layer.")
    assert (script.data, script.epochs) == ("mnist", 3)
    model = script.build(10, 3, (4, 5))
    assert isinstance(model, PyroModule)
    assert model.net[1].weight.shape == (10, 60)


def test_constants_may_be_left_out(write):
    script = load_model_script(write("def build(num_classes, in_channels, image_size): ..."))
    assert (script.data, script.epochs, script.about) == (None, None, "")


def test_script_may_import_a_file_beside_it(write):
    write("WIDTH = 7", "beside_the_script.py")
    path = write("from beside_the_script import WIDTH\nDATA = str(WIDTH)\ndef build(a, b, c): ...")
    assert load_model_script(path).data == "7"


@pytest.mark.parametrize("name", ["digits_mlp", "mnist_lenet", "mnist_mlp"])
def test_shipped_names_are_those_of_the_files(name):
    assert shipped_models()[name].name == f"{name}.py"
    assert load_model_script(name).path == shipped_models()[name]


def test_installed_scripts_come_before_the_checkout(tmp_path, monkeypatch):
    (tmp_path / "_models").mkdir()
    (tmp_path / "_models" / "other.py").write_text(GOOD)
    monkeypatch.setattr(scripts, "PACKAGE", tmp_path)
    assert list(shipped_models()) == ["other"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("digit_mlp", "'digit_mlp' is neither. Did you mean 'digits_mlp'"),
        ("nowhere.py", "there is no file nowhere.py"),
        ("no/where", "there is no file no/where"),
    ],
)
def test_missing_script_is_named(given, says):
    with pytest.raises(ModelError, match=says):
        load_model_script(given)


def test_folder_is_no_script(tmp_path):
    with pytest.raises(ModelError, match="is a folder. Name the file in it"):
        load_model_script(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef build(:\n", "mine.py has a syntax error in line 2"),
        (b"\xff\xfe\x00", "mine.py (cannot be read|has a syntax error: )"),
        ("x = 1\nimport no_such_module_here\n", "the script of .*mine.py raised in line 2 ModuleNotFoundError"),
        ("raise SystemExit(3)", "raised in line 1 SystemExit: 3"),
        ("x = 1", r"function build\(num_classes, in_channels, image_size\).*mine.py, but the script has none"),
        ("build = 3", "but the script has none"),
        ("DATA = 3\ndef build(a, b, c): ...", "DATA in .*mine.py must be the name .* but it is 3"),
        ("EPOCHS = 0\ndef build(a, b, c): ...", "EPOCHS in .*mine.py must be a positive whole number, but it is 0"),
    ],
)
def test_script_that_cannot_be_used_is_named(write, text, says):
    with pytest.raises(ModelError, match=says):
        load_model_script(write(text))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    x = 1\n    return x / 0", r"build\(num_classes=10, .*image_size=\(8, 8\)\) of .* in line 3 ZeroDivision"),
        ("    pass", "returned a NoneType. End it in: return wiu_pyro.nn.BayesianNetwork"),
        ("    import torch\n    return torch.nn.Linear(2, 2)", r"returned a Linear. Return .*BayesianNetwork\(net\)"),
    ],
)
def test_build_that_gives_no_model_is_named(write, body, says):
    script = load_model_script(write(f"def build(num_classes, in_channels, image_size):\n{body}\n"))
    with pytest.raises(ModelError, match=says):
        script.build(10, 1, (8, 8))


def test_build_with_other_parameters_is_named(write):
    script = load_model_script(write("def build(): ..."))
    with pytest.raises(ModelError, match=r"TypeError: build\(\) takes 0 positional arguments"):
        script.build(10, 1, (8, 8))


def test_the_toolkits_own_errors_pass_unchanged(write):
    text = "from wiu_pyro.errors import PriorError\ndef build(a, b, c):\n    raise PriorError('as it was')"
    with pytest.raises(PriorError, match="^as it was$"):
        load_model_script(write(text)).build(10, 1, (8, 8))


def test_copy_is_the_same_file(tmp_path):
    target = copy_model("mnist_mlp", tmp_path / "new")
    assert target == tmp_path / "new" / "mnist_mlp.py"
    assert target.read_bytes() == shipped_models()["mnist_mlp"].read_bytes()


def test_copy_replaces_nothing(tmp_path):
    (tmp_path / "mnist_mlp.py").write_text("mine")
    with pytest.raises(OutputError, match="is there already. Remove or rename it"):
        copy_model("mnist_mlp", tmp_path)
    assert (tmp_path / "mnist_mlp.py").read_text() == "mine"


def test_copy_into_a_file_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written to"):
        copy_model("mnist_mlp", tmp_path / "file" / "inside")


def test_copy_of_unknown_name_gets_the_near_match(tmp_path):
    with pytest.raises(ModelError, match="'mnist_mpl' is none. Did you mean 'mnist_mlp'"):
        copy_model("mnist_mpl", tmp_path)
