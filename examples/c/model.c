/* Runs a compiled model on zeros, or on numbers from the command line: `model FILE [VALUE ...]`, for a model of one input.
 *
 *   cc model.c $(pkg-config --cflags --libs aneforge) -o model && ./model model.aneforge 1 2 3
 */
#include <aneforge.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, aneforge_last_error());
    return 1;
}

static size_t count_of(const size_t *dims, int rank) {
    size_t count = 1;
    for (int axis = 0; axis < rank; axis++) count *= dims[axis];
    return count;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE [VALUE ...]\n", argv[0]);
        return 2;
    }
    aneforge_model *model = aneforge_open(argv[1], NULL);
    if (!model) return failed(argv[1]);
    size_t dims[5];
    int rank = aneforge_input_shape(model, 0, dims, 5);
    if (rank < 0) return failed("input 0");
    size_t count = count_of(dims, rank);
    float *values = calloc(count ? count : 1, sizeof *values);
    for (size_t at = 0; at < count && (int)at + 2 < argc; at++) values[at] = strtof(argv[at + 2], NULL);
    if (aneforge_set(model, 0, values, count) || aneforge_run(model)) return failed("run");
    printf("on %s\n", aneforge_placement(model));
    for (size_t output = 0; output < aneforge_output_count(model); output++) {
        rank = aneforge_output_shape(model, output, dims, 5);
        if (rank < 0) return failed("output");
        count = count_of(dims, rank);
        float *results = calloc(count ? count : 1, sizeof *results);
        if (aneforge_get(model, output, results, count)) return failed("get");
        printf("%s:", aneforge_output_name(model, output));
        for (size_t at = 0; at < count; at++) printf(" %g", results[at]);
        printf("\n");
        free(results);
    }
    free(values);
    aneforge_close(model);
    return 0;
}
