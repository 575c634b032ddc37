"""Kernels under Triton's interpreter, which TRITON_INTERPRET in tests/conftest.py turns on."""

from upcurve.engine.platform import HAS_TRITON, INTERPRETED

if HAS_TRITON and INTERPRETED:
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_with_index(tensor, scope) -> None:
        """A loop's bounds may be loaded: NumPy 2.4 no longer makes an int of an array of one."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_tensor_with_index
