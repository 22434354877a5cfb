"""Names of modules, without what torch.compile, DistributedDataParallel and other wrappers add to them."""

from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel, DistributedDataParallel, FSDP or a checkpoint wrapper."""
    while inside := _inside(model):
        model = getattr(model, inside)
    return model


def modules_by_name(model: nn.Module, duplicates: bool = False) -> dict[str, nn.Module]:
    """As `model.named_modules()`; wrappers add nothing to a name, which is that of the module inside.

    duplicates: a module that has several names comes under each.
    """
    return {plain: module for plain, module, _ in _named(model, duplicates)}


def plain_names(model: nn.Module) -> dict[str, str]:
    """Each name of `model.named_modules()` → the name in `modules_by_name(model, duplicates=True)`."""
    return {name: plain for plain, _, name in _named(model, True)}


def _named(model: nn.Module, duplicates: bool) -> list[tuple[str, nn.Module, str]]:
    named = list(model.named_modules(remove_duplicate=not duplicates))
    inside = {name: part for name, module in named if module._modules and (part := _inside(module))}
    if not inside:
        return [(name, module, name) for name, module in named]
    plain = {"": ""}
    for name, _ in named[1:]:
        outer, _, own = name.rpartition(".")
        prefix = plain[outer]
        plain[name] = prefix if inside.get(outer) == own else f"{prefix}.{own}" if prefix else own
    return [(plain[name], module, name) for name, module in named]


def _inside(module: nn.Module) -> str:
    """Under which name a wrapper keeps the module that it wraps; "" for other modules."""
    children = module._modules
    if "module" in children and isinstance(module, _PARALLEL):
        return "module"
    for name in _INSIDE:
        if name in children:
            return name
    return ""
