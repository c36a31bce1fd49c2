"""A plugin of pytest with what the suites expect from where they come from, and do not bring with them."""

import os
import sys
import types

from kubernetes.client import Configuration
from kubernetes.config import kube_config


def get_e2e_configuration():
    """Where the tests of the dynamic client find a cluster."""
    configuration = Configuration()
    kube_config.load_kube_config(config_file=os.environ["KUBECONFIG"], client_configuration=configuration)
    return configuration


package, base = types.ModuleType("kubernetes.e2e_test"), types.ModuleType("kubernetes.e2e_test.base")
base.get_e2e_configuration = get_e2e_configuration
package.base = base
sys.modules |= {package.__name__: package, base.__name__: base}


def pytest_addoption(parser):
    """pytest-kind's, which the suite of kr8s asks for."""
    parser.addoption("--keep-cluster", action="store_true", default=True)
