"""A device that is not there: `python pretend_device.py [CHECK ...]` runs the checks of `gpu-check` on it.

Its tensors compute on the CPU and say that they lie elsewhere; an operation that mixes them with tensors or generators
of the CPU raises, as it does on a GPU. Numbers are the CPU's, so it shows places and nothing else. It patches torch for
the whole process, hence a script of its own.
"""

import contextlib
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}  # take indices of the CPU
COPIES = {"aten::copy_", "aten::_to_copy"}
FAR_GENERATORS = {}  # kept, so that no address is used twice


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("pretended", backend_module=_Backend())
DEVICE = torch.device("pretended:0")


class Far(torch.Tensor):
    """A tensor of the pretended device; `near` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near):
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device=DEVICE,
        )  # fmt: skip
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return run(op, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Also what makes tensors comes past here."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        return run(op, args, kwargs or {})


def is_far(x):
    return isinstance(x, torch.Tensor) and hasattr(x, "near")


def near(x):
    return x.near if is_far(x) else x


def is_pretended(device):
    return device is not None and torch.device(device).type == DEVICE.type


def run(op, args, kwargs):
    """One operation, on the numbers of the CPU, if all its tensors lie where they can meet."""
    name = op._schema.name
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = any(map(is_far, tensors))
    if there:
        check(name, args, tensors)
    to_there = is_pretended(kwargs.get("device"))
    generator = kwargs.get("generator")
    if generator is not None and (there or to_there) and generator._cdata not in FAR_GENERATORS:
        raise RuntimeError(f"{name} on the device was given a generator of the CPU")
    plain_args, plain = tree_map(near, (args, dict(kwargs)))
    if to_there:
        plain["device"] = torch.device("cpu")
    found = op(*plain_args, **plain)
    if torch.Tag.inplace_view in op.tags and is_far(args[0]):
        with no_dispatch():
            op(*args, **kwargs)  # the shape that is shown follows
    for i, argument in enumerate(op._schema.arguments):
        if argument.alias_info and argument.alias_info.is_write:
            written = args[i] if i < len(args) else kwargs.get(argument.name)
            if isinstance(written, torch.Tensor) and near(written) is found:
                return written
    leaves = name == "aten::_to_copy" and kwargs.get("device") is not None and not to_there
    if leaves or not (there or to_there):
        return found
    return tree_map(lambda x: Far(x) if isinstance(x, torch.Tensor) and not is_far(x) else x, found)


def check(name, args, tensors):
    """Raise for tensors of two devices; numbers without dimensions may come from anywhere, indices from the CPU."""
    if name in COPIES:
        return
    values = tensors
    if name in INDEXED:
        values = [args[0], *([args[2]] if name != "aten::index" else [])]
    if wrong := [x for x in values if not is_far(x) and x.dim()]:
        raise RuntimeError(f"{name} mixes the device with a tensor {list(wrong[0].shape)} of the CPU")


def pretend():
    """Patch what does not come past a dispatch mode."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    plain = {n: getattr(torch.Tensor, n) for n in ("data_ptr", "tolist", "new_tensor", "__deepcopy__", "__format__")}

    def patched(name, instead):
        setattr(torch.Tensor, name, lambda x, *a, **k: instead(x, *a, **k) if is_far(x) else plain[name](x, *a, **k))

    patched("data_ptr", lambda x: x.near.data_ptr())
    patched("tolist", lambda x: x.detach().cpu().tolist())
    patched("new_tensor", lambda x, data, **k: x.near.new_tensor(data, **k).to(DEVICE))
    patched("__format__", lambda x, spec: format(x.item(), spec))
    patched("__deepcopy__", lambda x, memo: x.detach().clone())
    for name in ("__getitem__", "__setitem__"):  # a list of places becomes a tensor where no mode sees it
        patched_places(name)
    make, generator = torch.tensor, torch.Generator

    def tensor(data, **k):
        return make(data, **k | {"device": "cpu"}).to(DEVICE) if is_pretended(k.get("device")) else make(data, **k)

    class Generator(generator):
        def __new__(cls, device="cpu"):
            found = generator.__new__(cls, "cpu")
            if is_pretended(device):
                FAR_GENERATORS[found._cdata] = found
            return found

    torch.tensor, torch.Generator = tensor, Generator


def patched_places(name):
    plain = getattr(torch.Tensor, name)

    def as_tensor(place):
        return torch.tensor(place, dtype=torch.long) if isinstance(place, list) else place

    def instead(x, places, *value):
        if is_far(x):
            places = tuple(map(as_tensor, places)) if isinstance(places, tuple) else as_tensor(places)
        return plain(x, places, *value)

    setattr(torch.Tensor, name, instead)


def main(names):
    from conceptlab.experiments.gpu.bench import Bench
    from conceptlab.experiments.gpu_check import CHECKS

    pretend()
    warnings.simplefilter("ignore")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(DEVICE, folder=Path(folder))
        for name in names or CHECKS:
            try:
                with Mode():
                    CHECKS[name](bench)
                print(f"{name}: ok", flush=True)
            except Exception as error:
                bad += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                ours = [f for f in traceback.extract_tb(error.__traceback__) if "conceptlab" in f.filename]
                print("".join(traceback.format_list(ours)), flush=True)
    return bad


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
