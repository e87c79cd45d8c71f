/* Vectors of float32 as wide as a register, for the CPU kernels next to this file.

   The vectors are GCC's (clang has them too), so one text serves every processor. setup.py compiles each kernel once for each of
   the widths below, and setk/nn/kernel.py loads the build for the processor it runs on. */

#ifndef SETK_VEC_H
#define SETK_VEC_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { L = 16 }; /* floats in a vector */
#elif defined(__AVX2__)
enum { L = 8 };
#else
enum { L = 4 }; /* SSE, NEON */
#endif

#define INLINE static inline __attribute__((always_inline))
#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

typedef float V __attribute__((vector_size(4 * L)));
typedef int32_t VI __attribute__((vector_size(4 * L)));
typedef float U __attribute__((vector_size(4 * L), aligned(4), may_alias)); /* V anywhere in memory */

INLINE V load(const float *p) { return *(const U *)p; }
INLINE void store(float *p, V v) { *(U *)p = v; }
INLINE void add_to(float *p, V v) { store(p, load(p) + v); }
INLINE V spread(float a) { return a - (V){0}; }
INLINE V where(VI mask, V a) { return (V)(mask & (VI)a); } /* a, or 0 */
INLINE V choose(VI mask, V a, V b) { return (V)((mask & (VI)a) | (~mask & (VI)b)); }

/* setuptools builds extension modules, which must be importable; there is nothing in this one. */
#define JOIN(a, b) a##b
#define INIT(name) JOIN(PyInit_, name)
#define EMPTY_MODULE(title) \
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = title, .m_size = -1}; \
    PyMODINIT_FUNC INIT(MODULE)(void) { return PyModule_Create(&module); }

#endif
