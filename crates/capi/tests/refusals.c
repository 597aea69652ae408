/* What callers hand over and must not: `refusals MODEL`, where MODEL has an input of 40 values in half precision, an image of 12
 * bytes, and an output of 40 values. */
#include <ane_e5rt_dispatch.h>
#include <aneforge.h>
#include <stdio.h>
#include <string.h>

static int wrong = 0;

static void expect(int line, int failed, const char *told) {
    if (failed && strstr(aneforge_last_error(), told)) return;
    fprintf(stderr, "line %d: %s, %s\n", line, failed ? "failed" : "did not fail", aneforge_last_error());
    wrong = 1;
}
#define REFUSED(CALL, TOLD) expect(__LINE__, (CALL) == -1, TOLD)
#define NONE(CALL, TOLD) expect(__LINE__, (CALL) == NULL, TOLD)
#define DONE(CALL) expect(__LINE__, (CALL) == 0, "")

static void called(void *context, int code) { *(int *)context += 1 + code; }

static void programs(void) {
    const char *names[] = {NULL}, *named[] = {"a"};
    const size_t sizes[] = {2};
    void *at;
    size_t bytes;
    NONE(ane_e5rt_program_compile(NULL, "x", 4, named, sizes, 1, named, sizes, 1), "the path is null");
    NONE(ane_e5rt_program_compile("x", "x", 4, names, sizes, 1, named, sizes, 1), "the name of input 0 is null");
    NONE(ane_e5rt_program_compile("x", "x", 4, named, sizes, 1, NULL, sizes, 1), "the names of outputs are null");
    NONE(ane_e5rt_program_compile("x", "x", 4, named, NULL, 1, named, sizes, 1), "the sizes of inputs are null");
    REFUSED(ane_e5rt_program_input_buffer(NULL, "a", NULL, &bytes), "the place for the pointer is null");
    REFUSED(ane_e5rt_program_input_buffer(NULL, "a", &at, NULL), "the place for the number of bytes is null");
    REFUSED(ane_e5rt_program_input_buffer(NULL, "a", &at, &bytes), "the program is null");
    REFUSED(ane_e5rt_program_get_event_last_signaled(NULL, 0, NULL), "the place for the value is null");
    NONE(ane_e5rt_make_completion_block(NULL, NULL), "the function to call is null");
    int count = 0;
    void *block = ane_e5rt_make_completion_block(called, &count);
    expect(__LINE__, block != NULL, "");
    ane_e5rt_free_completion_block(block);
    ane_e5rt_free_completion_block(NULL);
}

static void models(const char *path) {
    float values[41] = {0};
    uint8_t image[40] = {3};
    size_t dims[5];
    NONE(aneforge_open(path, "gpu"), "unknown device `gpu`");
    NONE(aneforge_open(NULL, "host"), "the path is null");
    aneforge_model *model = aneforge_open(path, " Host ");
    expect(__LINE__, model != NULL, "");
    REFUSED(aneforge_get(model, 0, values, 41), "output 0 has 40 values, and 41 were asked for");
    REFUSED(aneforge_get(model, 0, NULL, 40), "the place for the values is null");
    REFUSED(aneforge_get(NULL, 0, values, 40), "the model is null");
    REFUSED(aneforge_set(model, 0, NULL, 40), "the values are null");
    REFUSED(aneforge_set(model, 0, values, 41), "input 0 has 40 values, got 41");
    REFUSED(aneforge_output_shape(model, 0, NULL, 5), "the place for the extents is null");
    REFUSED(aneforge_output_shape(model, 0, dims, 0), "the shape has 1 extents, and there is room for 0");
    /* Bytes are numbers for an input in half precision; an image takes nothing else. */
    DONE(aneforge_set_bytes(model, 0, image, 40));
    REFUSED(aneforge_set(model, 1, values, 12), "takes integers from 0 to 255, got fp32");
    DONE(aneforge_set_bytes(model, 1, image, 12));
    DONE(aneforge_run(model));
    DONE(aneforge_get(model, 0, values, 40));
    expect(__LINE__, values[0] == 6 && values[1] == 0, "");
    aneforge_close(model);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    models(argv[1]);
    programs();
    return wrong;
}
