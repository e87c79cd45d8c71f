"""HDF5 shards: many utterances in one file, so that a random segment is one contiguous read."""

from setk.data.shards.reader import Shards as Shards, names as names
from setk.data.shards.writer import sets_of as sets_of, write_shards as write_shards
