/* Samples from one rate to another, in blocks of any size: a sinc with a Kaiser window at exact fractions of a sample.
 *
 * The cutoff is that of the very-high-quality preset of libsoxr, by which se-enhance resamples: -6 dB at 95.57 % of the lower Nyquist
 * frequency, and the pass band to 91 %. The sinc spans 112 samples of the lower rate on either side; beta 13.15 attenuates what would
 * alias by 128 dB (J. F. Kaiser, "Nonrecursive digital filter design using the I0-sinh window function", 1974). */
enum { RESAMPLE_HALF = 112, RESAMPLE_PHASES = 1024, RESAMPLE_BLOCK = 256 };

typedef struct {
    int from, to;      /* the rates without their common divisor */
    int half, taps;    /* samples on one side of an output's time; on both, rounded up to whole vectors */
    int rows;          /* fractions of a sample in the table: all, or RESAMPLE_PHASES between which values are interpolated */
    int first, filled; /* the next output's samples begin at buffer[first]; samples in the buffer */
    int fraction;      /* of the next output's time, in 1 / to of an input sample */
    float *table, *buffer;
} Resampler;

static int common_divisor(int a, int b)
{
    while (b) {
        int rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* sin(pi x) */
static double sine(double x)
{
    int whole = (int)(x < 0 ? x - 0.5 : x + 0.5);
    double r = (x - whole) * 3.14159265358979323846, term = r, sum = r;
    for (int k = 2; k < 24; k += 2) {
        term *= -r * r / (k * (k + 1));
        sum += term;
    }
    return whole % 2 ? -sum : sum;
}

/* The Bessel function I0(2 sqrt(q)) */
static double bessel(double q)
{
    double term = 1, sum = 1;
    for (int k = 1; k < 40; k++) {
        term *= q / ((double)k * k);
        sum += term;
    }
    return sum;
}

/* Sizes for two rates in Hz. */
static void resampler_size(Resampler *r, int from, int to)
{
    int divisor = common_divisor(from, to);
    r->from = from / divisor, r->to = to / divisor;
    r->half = r->from > r->to ? (RESAMPLE_HALF * r->from + r->to - 1) / r->to : RESAMPLE_HALF;
    r->taps = (2 * r->half + PANEL - 1) / PANEL * PANEL;
    r->rows = r->to <= RESAMPLE_PHASES ? r->to : RESAMPLE_PHASES;
}

/* Floats of memory that a resampler needs. */
static int resampler_floats(const Resampler *r) { return (r->rows + 2) * r->taps + RESAMPLE_BLOCK; }

/* Fills the table of a resampler with sizes, and starts with silence. */
static void resampler_start(Resampler *r, float *memory)
{
    const double beta = 13.15, cutoff = 0.95566 * (r->from > r->to ? (double)r->to / r->from : 1.0);
    r->table = memory;
    r->buffer = memory + (r->rows + 1) * r->taps;
    for (int row = 0; row <= r->rows; row++) {
        float *line = r->table + row * r->taps;
        double sum = 0;
        for (int k = 0; k < r->taps; k++) {
            double x = k - r->half + 1 - (double)row / r->rows, t = x / r->half, value = 0;
            if (t > -1 && t < 1) {
                value = x == 0 ? cutoff : sine(cutoff * x) / (3.14159265358979323846 * x);
                value *= bessel(beta * beta / 4 * (1 - t * t));
            }
            line[k] = (float)value;
            sum += value;
        }
        for (int k = 0; k < r->taps; k++) line[k] = (float)(line[k] / sum);
    }
    for (int i = 0; i < r->taps + RESAMPLE_BLOCK; i++) r->buffer[i] = 0;
    r->first = r->fraction = 0;
    r->filled = r->half - 1;
}

static float weighted(const float *samples, const float *weights, int taps)
{
    V sums[VP];
    float lanes[PANEL];
    for (int v = 0; v < VP; v++) sums[v] = splat(0.0f);
    for (int k = 0; k < taps; k += PANEL)
        UNROLL for (int v = 0; v < VP; v++) sums[v] = sums[v] + load(samples + k + v * W) * load(weights + k + v * W);
    for (int v = 0; v < VP; v++) store(lanes + v * W, sums[v]);
    return fold(lanes);
}

/* Reads up to RESAMPLE_BLOCK samples and writes the outputs that are known now. Returns their number. The first output is at the time
 * of the first input; each is known `half` inputs after its time. */
static int resample(Resampler *r, const float *in, int count, float *out)
{
    int made = 0, used = r->first < r->filled ? r->first : r->filled;
    for (int i = used; i < r->filled; i++) r->buffer[i - used] = r->buffer[i];
    r->first -= used, r->filled -= used;
    for (int i = 0; i < count; i++) r->buffer[r->filled++] = in[i];
    while (r->first + 2 * r->half <= r->filled) {
        double at = (double)r->fraction * r->rows / r->to;
        int row = (int)at;
        const float *samples = r->buffer + r->first, *line = r->table + row * r->taps;
        float part = (float)(at - row), value = weighted(samples, line, r->taps);
        if (part > 0) value += part * (weighted(samples, line + r->taps, r->taps) - value);
        out[made++] = value;
        r->fraction += r->from;
        r->first += r->fraction / r->to;
        r->fraction %= r->to;
    }
    return made;
}

/* The most outputs of one call. */
static int resampled_most(const Resampler *r, int count) { return count * r->to / r->from + 2; }
