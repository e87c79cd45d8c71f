/* A model as LADSPA plugins, of one channel and of two, at any rate. The file that includes this one defines MODEL(name) and SIZE(name),
 * the functions and the sizes of the model's C, and LABEL, TITLE and NUMBER. */
#include <stdlib.h>
#include "resample.h"
#include "live.h"

/* The interface of LADSPA 1.1: what a host finds in a plugin. */
enum { PORT_INPUT = 1, PORT_OUTPUT = 2, PORT_CONTROL = 4, PORT_AUDIO = 8 };
enum { BOUNDED_BELOW = 0x1, BOUNDED_ABOVE = 0x2, DEFAULT_MAXIMUM = 0x140 };
enum { HARD_REAL_TIME = 0x4 };

typedef struct {
    int hints;
    float lower, upper;
} Range;

typedef struct Descriptor {
    unsigned long number;
    const char *label;
    int properties;
    const char *name, *maker, *copyright;
    unsigned long port_count;
    const int *ports;
    const char *const *port_names;
    const Range *ranges;
    void *channels;
    void *(*instantiate)(const struct Descriptor *descriptor, unsigned long rate);
    void (*connect_port)(void *instance, unsigned long port, float *data);
    void (*activate)(void *instance);
    void (*run)(void *instance, unsigned long samples);
    void (*run_adding)(void *instance, unsigned long samples);
    void (*set_run_adding_gain)(void *instance, float gain);
    void (*deactivate)(void *instance);
    void (*cleanup)(void *instance);
} Descriptor;

enum { MOST_CHANNELS = 2, LEAST_RATE = 4000, GREATEST_RATE = 768000 };
static const float no_limit = 60.0f; /* dB; the greatest value of the control, and its default */

typedef struct {
    Live live;
    MODEL(state) *state;
    float *state_memory, *live_memory, *scratch;
} Channel;

typedef struct {
    int channels;
    Channel channel[MOST_CHANNELS];
    float *ports[2 * MOST_CHANNELS + 2]; /* inputs, outputs, limit, latency */
} Instance;

static void run_hop(void *model, const float *in, float *out)
{
    Channel *channel = model;
    MODEL(process)(channel->state, channel->scratch, in, out);
}

static void activate(void *handle)
{
    Instance *instance = handle;
    for (int c = 0; c < instance->channels; c++) {
        Channel *channel = &instance->channel[c];
        channel->state = MODEL(init)(channel->state_memory);
        channel->live.skip = SIZE(DELAY);
        live_start(&channel->live, channel->live_memory, run_hop, channel);
    }
}

static void cleanup(void *handle)
{
    Instance *instance = handle;
    for (int c = 0; c < instance->channels; c++) {
        free(instance->channel[c].state_memory);
        free(instance->channel[c].live_memory);
        free(instance->channel[c].scratch);
    }
    free(instance);
}

static void *instantiate(const Descriptor *descriptor, unsigned long rate)
{
    Instance *instance = calloc(1, sizeof *instance);
    int complete = 1;
    if (!instance || rate < LEAST_RATE || rate > GREATEST_RATE) {
        free(instance);
        return NULL;
    }
    instance->channels = *(const int *)descriptor->channels;
    for (int c = 0; c < instance->channels; c++) {
        Channel *channel = &instance->channel[c];
        live_size(&channel->live, (int)rate, SIZE(RATE), SIZE(HOP), SIZE(DELAY));
        channel->state_memory = malloc(SIZE(STATE_BYTES));
        channel->scratch = malloc(SIZE(SCRATCH_BYTES));
        channel->live_memory = malloc(sizeof(float) * (size_t)live_floats(&channel->live));
        complete = complete && channel->state_memory && channel->scratch && channel->live_memory;
    }
    if (!complete) {
        cleanup(instance);
        return NULL;
    }
    activate(instance);
    return instance;
}

static void connect_port(void *handle, unsigned long port, float *data) { ((Instance *)handle)->ports[port] = data; }

static void run_plugin(void *handle, unsigned long samples)
{
    Instance *instance = handle;
    int channels = instance->channels;
    float **in = instance->ports, **out = in + channels, *limit = in[2 * channels], *latency = in[2 * channels + 1];
    float kept = limit && *limit < no_limit ? limit_gain(*limit) : 0.0f;
    if (latency) *latency = (float)instance->channel[0].live.delay;
    for (unsigned long at = 0; at < samples; at += LIVE_BLOCK) {
        /* An output may share its memory with the input of another channel. */
        float block[MOST_CHANNELS][LIVE_BLOCK], wet[LIVE_BLOCK], dry[LIVE_BLOCK];
        int count = samples - at < LIVE_BLOCK ? (int)(samples - at) : LIVE_BLOCK;
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < count; i++) block[c][i] = in[c][at + (unsigned long)i];
        for (int c = 0; c < channels; c++) {
            live_process(&instance->channel[c].live, block[c], wet, dry, count);
            if (kept > 0.0f) mix(wet, dry, kept, count);
            for (int i = 0; i < count; i++) out[c][at + (unsigned long)i] = wet[i];
        }
    }
}

#define LIMIT "Limit (dB)"
#define CONTROLS PORT_INPUT | PORT_CONTROL, PORT_OUTPUT | PORT_CONTROL
#define CONTROL_RANGES {BOUNDED_BELOW | BOUNDED_ABOVE | DEFAULT_MAXIMUM, 0, 60}, {0, 0, 0}
#define FUNCTIONS instantiate, connect_port, activate, run_plugin, NULL, NULL, NULL, cleanup

static int one = 1, two = 2;
static const int mono_ports[] = {PORT_INPUT | PORT_AUDIO, PORT_OUTPUT | PORT_AUDIO, CONTROLS};
static const char *const mono_names[] = {"Input", "Output", LIMIT, "latency"};
static const Range mono_ranges[] = {{0, 0, 0}, {0, 0, 0}, CONTROL_RANGES};
static const int stereo_ports[] = {PORT_INPUT | PORT_AUDIO, PORT_INPUT | PORT_AUDIO, PORT_OUTPUT | PORT_AUDIO, PORT_OUTPUT | PORT_AUDIO, CONTROLS};
static const char *const stereo_names[] = {"Input left", "Input right", "Output left", "Output right", LIMIT, "latency"};
static const Range stereo_ranges[] = {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, CONTROL_RANGES};

static const Descriptor descriptors[] = {
    {NUMBER, LABEL, HARD_REAL_TIME, TITLE, "setk", "Apache License 2.0", 4, mono_ports, mono_names, mono_ranges, &one, FUNCTIONS},
    {NUMBER + 1, LABEL "_stereo", HARD_REAL_TIME, TITLE ", stereo", "setk", "Apache License 2.0", 6, stereo_ports, stereo_names, stereo_ranges, &two, FUNCTIONS},
};

/* The function that hosts look for: the plugins of this library by their number, and NULL after the last one. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const Descriptor *ladspa_descriptor(unsigned long index);

const Descriptor *ladspa_descriptor(unsigned long index) { return index < 2 ? &descriptors[index] : NULL; }
