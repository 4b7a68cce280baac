import sysconfig

from setuptools import setup

# setuptools refuses the limited API on free-threaded Python
abi3 = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp310"}}

setup(
    packages=["edgecomp", "edgecomp.measure", "edgecomp.readers", "edgecomp.data", "edgecomp.include", "edgecomp.kernels"],
    package_dir={"edgecomp": "edgecomp", "edgecomp.kernels": "kernels"},
    package_data={"edgecomp": ["py.typed"], "edgecomp.data": ["*"], "edgecomp.include": ["*.h"]},
    cffi_modules=["csrc/build_cffi.py:ffi"],
    options=abi3,
)
