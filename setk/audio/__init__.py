"""Audio in and out: files, pipes and commands; resampling; the STFT."""

from setk.audio.io import (
    SUBTYPES as SUBTYPES, Info as Info, WavReader as WavReader, Writer as Writer, check_mono as check_mono, from_int16 as from_int16,
    is_command as is_command, newest_ns as newest_ns, open_blocks as open_blocks, open_wav as open_wav, probe as probe,
    raw_blocks as raw_blocks, read as read, read_mono as read_mono, resample as resample, resampled_length as resampled_length,
    to_int16 as to_int16, wav_header as wav_header, write as write,
)
