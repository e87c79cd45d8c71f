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

/* Runs a program for each of `hops` hops of samples; `constants`, `state` and `scratch` are aligned to 64 bytes. */
void setk_run(const int32_t *program, int words, const float *constants, float *state, float *scratch, const float *in, float *out,
              int hops, int hop)
{
    Memory memory = {constants, state, scratch, in, out};
    for (; hops > 0; hops--) {
        run(program, words, &memory);
        memory.in += hop;
        memory.out += hop;
    }
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
