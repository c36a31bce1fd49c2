"""kr8s makes itself a cluster with pytest-kind. Here it gets the platform that KUBECONFIG names."""

import os
import pathlib
import subprocess


class KindCluster:
    def __init__(self, name, image=None, kubeconfig=None):
        self.name = name
        self.kubeconfig_path = pathlib.Path(os.environ["KUBECONFIG"])

    def create(self, config_file=None):
        pass

    def delete(self):
        pass

    def kubectl(self, *arguments):
        return subprocess.check_output([os.environ["KUBECTL"], *arguments], encoding="utf-8")
