"""Audio in and out: files, pipes and commands; resampling; the STFT."""

from setk.audio.io import (
    SUBTYPES as SUBTYPES,
    Writer as Writer,
    check_format as check_format,
    open_blocks as open_blocks,
    probe as probe,
    read as read,
    read_mono as read_mono,
    write as write,
)
from setk.audio.location import Location as Location, check_mono as check_mono, check_unread as check_unread
from setk.audio.pcm import (
    FULL_SCALE as FULL_SCALE,
    LOST as LOST,
    from_int16 as from_int16,
    raw_blocks as raw_blocks,
    to_int16 as to_int16,
)
from setk.audio.resample import resample as resample, resampled_length as resampled_length
from setk.audio.wav import Info as Info, WavReader as WavReader, wav_header as wav_header
