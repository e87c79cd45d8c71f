/* The loop that runs a program of `words` int32. */
enum { PRODUCT, NARROW, SPARSE_PRODUCT, MAP, MOVE, TAKE, ZERO, NORMALISE, GATES, SCAN, DEPTHWISE, PUSH, SOFTMAX, GREATEST_INDEX, ANALYSE,
       SYNTHESISE, FRAME, OVERLAP, EXPAND, SPARSE_INT8, CELL };

static void run(const int32_t *program, int words, const Memory *memory)
{
    for (const int32_t *row = program; row < program + words; row += 2 + row[1]) {
        const int32_t *arguments = row + 2;
        switch (row[0]) {
        case PRODUCT: product(arguments, memory); break;
        case NARROW: narrow(arguments, memory); break;
        case SPARSE_PRODUCT: sparse_product(arguments, memory); break;
        case MAP: map(arguments, memory); break;
        case MOVE: move(arguments, memory); break;
        case TAKE: take(arguments, memory); break;
        case ZERO: zero_fill(arguments, memory); break;
        case NORMALISE: normalise(arguments, memory); break;
        case GATES: gates(arguments, memory); break;
        case SCAN: scan(arguments, memory); break;
        case DEPTHWISE: depthwise(arguments, memory); break;
        case PUSH: push(arguments, memory); break;
        case SOFTMAX: softmax(arguments, memory); break;
        case GREATEST_INDEX: greatest_index(arguments, memory); break;
        case ANALYSE: analyse(arguments, memory); break;
        case SYNTHESISE: synthesise(arguments, memory); break;
        case FRAME: frame(arguments, memory); break;
        case OVERLAP: overlap(arguments, memory); break;
        case EXPAND: expand(arguments, memory); break;
        case SPARSE_INT8: sparse_int8(arguments, memory); break;
        case CELL: cell(arguments, memory); break;
        }
    }
}
