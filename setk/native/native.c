/* The kernels as a shared library, which runs the program of any model (setk/engines/native.py). */
#ifdef MODULE
#include <Python.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include "vector.h"
#include "kernels.h"
#include "products.h"
#include "layers.h"
#include "transform.h"
#include "late.h"
#include "program.h"
#include "resample.h"
#include "live.h"

/* Runs a program for each of `hops` hops of samples; `constants`, `state` and `scratch` are aligned to 64 bytes. */
void setk_run(const int32_t *program, int words, const float *constants, float *state, float *scratch, const float *in, float *out,
              int hops, int hop)
{
    Memory memory = {constants, state, scratch, in, out, NULL, NULL};
    for (; hops > 0; hops--) {
        run(program, words, &memory);
        memory.in += hop;
        memory.out += hop;
    }
}

/* A program as the model of a live stream. */
typedef struct {
    Live live;
    const int32_t *program;
    int words;
    Memory memory;
} LiveProgram;

enum { LIVE_PROGRAM_FLOATS = (sizeof(LiveProgram) + sizeof(float) - 1) / sizeof(float) };

static void run_hop(void *model, const float *in, float *out)
{
    LiveProgram *stream = model;
    stream->memory.in = in, stream->memory.out = out;
    run(stream->program, stream->words, &stream->memory);
}

/* Floats of memory, aligned to 64 bytes, that a live stream at `rate` needs around a model at `model_rate`. */
int setk_live_floats(int rate, int model_rate, int hop, int delay)
{
    Live live;
    live_size(&live, rate, model_rate, hop, delay);
    return LIVE_PROGRAM_FLOATS + live_floats(&live);
}

/* Starts a live stream. `state` is as the model's reset left it. Returns the samples by which the output is later than the input. */
int setk_live_start(float *memory, int rate, int model_rate, int hop, int delay, const int32_t *program, int words, const float *constants,
                    float *state, float *scratch)
{
    LiveProgram *stream = (LiveProgram *)(void *)memory;
    Memory around = {constants, state, scratch, NULL, NULL, NULL, NULL};
    stream->program = program, stream->words = words, stream->memory = around;
    live_size(&stream->live, rate, model_rate, hop, delay);
    live_start(&stream->live, memory + LIVE_PROGRAM_FLOATS, run_hop, stream);
    return stream->live.delay;
}

/* Reads `count` samples, at most 128, and writes as many: enhanced to `wet`, the input as late as these to `dry`. */
void setk_live(float *memory, const float *in, float *wet, float *dry, int count)
{
    live_process(&((LiveProgram *)(void *)memory)->live, in, wet, dry, count);
}

/* The widest build that this processor runs: 0 for the base, 1 for AVX2, 2 for AVX-512. */
int setk_level(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

#ifdef MODULE
/* An extension module without contents: it is loaded by ctypes. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "kernels", NULL, -1, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC JOIN(PyInit_, MODULE)(void) { return PyModule_Create(&module); }
#endif
