"""A build begins with an empty folder: setuptools packs whatever lies in build/lib, and a policy that was removed or renamed
since the last one would stay in the package, and in force."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Fresh(build_py):
    def run(self) -> None:
        if not self.editable_mode and Path(self.build_lib).exists():
            shutil.rmtree(self.build_lib)
        super().run()


setup(cmdclass={"build_py": Fresh})
