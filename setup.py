"""What pyproject.toml cannot say: the documented configurations are a part of the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fnas_jax*"]), "fnas_jax.experiments"],
    package_dir={"fnas_jax.experiments": "experiments"},
)
