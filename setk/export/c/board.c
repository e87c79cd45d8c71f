/* A bare board: start-up, audio by double buffer, and the model in the middle. On QEMU the audio is the test signal, and the
 * program prints a hash of the output, the instructions of a hop, and the bytes of stack in use. Instructions are those of SysTick
 * under -icount shift=0: 40 each tick of 25 MHz; the mps2-an505 has 20 MHz, -DTICK=50. `se-count fspen --target m7` builds and runs
 * it.
 *
 *   se-quant export fspen fspen.c
 *   arm-none-eabi-gcc -mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard -O3 -ffp-contract=off -ffreestanding -nostdlib
 *       -I. -T board.ld board.c fspen.c -lgcc -o board.elf
 *   qemu-system-arm -M mps2-an500 -nographic -semihosting -icount shift=0 -kernel board.elf
 *
 * With -DBOARD_S16 samples are of 16 bits, as for the integer form of `se-quant export fspen fspen.c --integer`:
 *   arm-none-eabi-gcc -mcpu=cortex-m4 -mfloat-abi=soft -DBOARD_S16 -O2 ... and qemu-system-arm -M mps2-an386
 */
#include "fspen.h"

#ifndef TICK
#define TICK 40
#endif
#ifdef BOARD_S16
typedef int16_t sample;
#define PROCESS fspen_process_s16
#else
typedef float sample;
#define PROCESS fspen_process
#endif

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
static float state[FSPEN_STATE_BYTES / 4], scratch[FSPEN_SCRATCH_BYTES / 4];
static sample buffers[2][FSPEN_HOP];
static volatile uint32_t *const systick = (uint32_t *)0xe000e010; /* control, reload, value */

/* Compilers call it for assignments of arrays and structures. */
void *memcpy(void *to, const void *from, __SIZE_TYPE__ n)
{
    for (__SIZE_TYPE__ i = 0; i < n; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, __SIZE_TYPE__ n)
{
    for (__SIZE_TYPE__ i = 0; i < n; i++) ((volatile char *)to)[i] = (char)value;
    return to;
}

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *name, uint32_t value)
{
    char text[12], *p = text + 11;
    *p = 0, *--p = '\n';
    for (int i = 0; i < 8; i++, value >>= 4) *--p = "0123456789abcdef"[value & 15];
    semihost(4, name);
    semihost(4, p);
}

/* The stack below main() is filled with a pattern, which shows later how deep it was used. */
#define PATTERN 0x5e74ac5eu
#define DEEPEST 4096 /* words */
static __attribute__((noinline)) void paint(void)
{
    volatile uint32_t *end = (uint32_t *)__builtin_frame_address(0) - 16;
    for (volatile uint32_t *p = end - DEEPEST; p < end; p++) *p = PATTERN;
}

static uint32_t stack_bytes(void)
{
    volatile uint32_t *p = (uint32_t *)__builtin_frame_address(0) - DEEPEST;
    while (*p == PATTERN) p++;
    return (uint32_t)((char *)stack_top - (char *)p);
}

/* In place of the interrupt of a codec's DMA: fills one buffer while the other is processed. */
static void record(sample *samples, int hop)
{
    static uint32_t random = 1;
    for (int i = 0; i < FSPEN_HOP; i++) {
        random = random * 1664525u + 1013904223u;
        int32_t x = (int32_t)(random >> 16) - 32768;
#ifdef BOARD_S16
        samples[i] = (sample)(x * (1 + hop % 8) / 50);
#else
        samples[i] = (float)x / 32768.0f * 0.02f * (float)(1 + hop % 8);
#endif
    }
}

int main(void)
{
    fspen_state *model = fspen_init(state);
    uint64_t hash = 14695981039346656037u;
    uint32_t least = 0xffffff;
    paint();
    systick[1] = 0xffffff, systick[2] = 0, systick[0] = 5;
    for (int hop = 0; hop < 24; hop++) {
        sample *now = buffers[hop % 2];
        record(now, hop);
        uint32_t before = systick[2];
        PROCESS(model, scratch, now, now);
        uint32_t ticks = (before - systick[2]) & 0xffffff;
        least = ticks < least ? ticks : least;
        for (int i = 0; i < FSPEN_HOP; i++) {
            uint32_t bits = 0;
            memcpy(&bits, &now[i], sizeof now[i]);
            hash = (hash ^ bits) * 1099511628211u;
        }
    }
    print("hash high ", (uint32_t)(hash >> 32));
    print("hash low ", (uint32_t)hash);
    print("instructions ", TICK * least);
    print("stack ", stack_bytes());
    return 0;
}

void reset(void)
{
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* the floating-point unit on */
    for (uint32_t *p = data_start, *q = data_load; p < data_end;) *p++ = *q++;
    for (uint32_t *p = bss_start; p < bss_end;) *p++ = 0;
    main();
    semihost(0x18, (void *)0x20026);
    for (;;) {}
}

__attribute__((section(".vectors"), used)) static void *const vectors[] = {stack_top, reset};
