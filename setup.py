import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor

from setuptools import setup
from setuptools.command.build_ext import build_ext

# setuptools refuses the limited API on free-threaded Python
abi3 = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp310"}}


class parallel_build_ext(build_ext):
    """Compiles as many files at once as there are CPUs: one by one they take minutes."""

    def build_extension(self, ext):
        compile_some = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [obj for objects in pool.map(lambda source: compile_some([source], **options), sources) for obj in objects]

        self.compiler.compile = compile_all
        super().build_extension(ext)


setup(
    cmdclass={"build_ext": parallel_build_ext},
    packages=["edgecomp", "edgecomp.measure", "edgecomp.readers", "edgecomp.data", "edgecomp.include", "edgecomp.kernels"],
    package_dir={"edgecomp": "edgecomp", "edgecomp.kernels": "kernels"},
    package_data={"edgecomp": ["py.typed"], "edgecomp.data": ["*"], "edgecomp.include": ["*.h"]},
    cffi_modules=["csrc/build_cffi.py:ffi"],
    options=abi3,
)
