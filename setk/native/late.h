/* ---- ANALYSE FRAME: the input of a stream, as late as its output, and a limit of the noise reduction by it. */

/* Writes to `out` the samples that are `delay` behind those of `in`. `line`: `delay` floats, zeros at first. Returns the next `at`. */
INLINE int late(float *line, int delay, int at, const float *in, float *out, int count)
{
    for (int i = 0; i < count; i++) {
        float x = sane(in[i]);
        if (delay == 0) {
            out[i] = x;
        } else {
            out[i] = line[at];
            line[at] = x;
            at = at + 1 < delay ? at + 1 : 0;
        }
    }
    return at;
}

/* What enters a model of `past` samples of history with x: the samples that leave that history are `past` behind. They lie in it one
 * after the other, or the even ones before the odd. Before the model runs. */
INLINE void leaving(const float *history, int split, int past, const float *x, float *out, int count)
{
    for (int i = 0; i < count; i++)
        out[i] = i >= past ? sane(x[i - past]) : split ? history[i % 2 * (past / 2) + i / 2] : history[i];
}

/* y of the noisy x with a part of x, so that what y lacks remains at that gain. */
INLINE void mix(float *y, const float *x, float gain, int count)
{
    for (int i = 0; i < count; i++) y[i] = (1.0f - gain) * y[i] + gain * x[i];
}

/* The gain of a limit in dB: 1 for 0 and less, 0 for 200 and more and for what is not a number. */
INLINE float limit_gain(float decibels)
{
    float gain[W] = {0};
    if (decibels <= 0.0f) return 1.0f;
    if (decibels < 200.0f) store_some(gain, exponential(splat(-0.11512925f * decibels)), 1);
    return gain[0];
}
