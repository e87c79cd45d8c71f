"""A model as a LADSPA plugin, for PipeWire, ffmpeg, sox and audio editors."""
