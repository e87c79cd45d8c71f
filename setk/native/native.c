/* The kernels as a shared library, which runs the program of any model (setk/engines/native.py). */
#include <stddef.h>
#include <stdint.h>
#include "vector.h"
#include "kernels.h"
#include "products.h"
#include "layers.h"
#include "transform.h"
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
