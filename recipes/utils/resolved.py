"""resolved.py CONFIG [KEY=VALUE...]: the config with these settings, as YAML; for se-count."""

import sys

import yaml

from setk.core import config

yaml.safe_dump(config.override(config.read_yaml(config.find(sys.argv[1])), sys.argv[2:]), sys.stdout, sort_keys=False)
