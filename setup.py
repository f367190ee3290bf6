"""What pyproject.toml cannot say: the demo's pairs and the recipes lie at the top of the clone, and inside the package.

They are data without modules, `rmo/data` and `rmo/pipelines` of a wheel; a folder `pipelines` of its own in
site-packages would collide with others'. `rmo/demo.py` finds them in either place.
"""

from setuptools import find_packages, setup

FOLDERS_OF_DATA = ["rmo.data", "rmo.pipelines", "rmo_curate.audit.explained"]

setup(
    packages=[*find_packages(include=["rmo", "rmo.*", "rmo_train*", "rmo_curate*"]), *FOLDERS_OF_DATA],
    package_dir={"rmo.data": "data", "rmo.pipelines": "pipelines"},
)
