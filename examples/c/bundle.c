/* A program of MIL with three ports by the functions that ANEForge documents: `bundle FOLDER [A B Y]`, where FOLDER/model.mil adds what it
 * is fed at ports A and B, of 8 values each, and returns Y (`a`, `b` and `y`, where nothing is said). README.md says how to make one.
 *
 *   cc bundle.c $(pkg-config --cflags --libs aneforge) -o bundle && ./bundle folder
 */
#include <ane_e5rt_dispatch.h>
#include <stdio.h>
#include <string.h>

enum { COUNT = 8 };

int main(int argc, char **argv) {
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: %s FOLDER [A B Y]\n", argv[0]);
        return 2;
    }
    const char *a = argc == 5 ? argv[2] : "a", *b = argc == 5 ? argv[3] : "b", *y = argc == 5 ? argv[4] : "y";
    char mil[4096], cache[4096];
    snprintf(mil, sizeof mil, "%s/model.mil", argv[1]);
    snprintf(cache, sizeof cache, "%s/cache", argv[1]);
    const char *in_names[] = {a, b}, *out_names[] = {y};
    const size_t in_bytes[] = {2 * COUNT, 2 * COUNT}, out_bytes[] = {2 * COUNT};
    ane_e5rt_program *program = ane_e5rt_program_compile(mil, cache, 4, in_names, in_bytes, 2, out_names, out_bytes, 1);
    if (!program) return 1;
    uint16_t ones[COUNT], got[COUNT];
    for (int at = 0; at < COUNT; at++) ones[at] = 0x3c00; /* 1 in half precision */
    if (ane_e5rt_program_set_input_fp16(program, a, ones, COUNT)) return 1;
    void *second;
    size_t bytes;
    if (ane_e5rt_program_input_buffer(program, b, &second, &bytes) || bytes != sizeof ones) return 1;
    memcpy(second, ones, sizeof ones);
    if (ane_e5rt_program_execute(program)) return 1;
    if (ane_e5rt_program_get_output_fp16(program, y, got, COUNT)) return 1;
    for (int at = 0; at < COUNT; at++) {
        if (got[at] != 0x4000) { /* 2 */
            fprintf(stderr, "1 + 1 is not %#06x\n", got[at]);
            return 1;
        }
    }
    /* What is not there is an error, and no crash. */
    if (ane_e5rt_program_set_input_fp16(program, "no such port", ones, COUNT) != -1) return 1;
    if (ane_e5rt_program_set_input_fp16(program, a, ones, COUNT + 1) != -1) return 1;
    if (ane_e5rt_program_execute(NULL) != -1) return 1;
    const size_t wrong[] = {2 * COUNT, 4};
    if (ane_e5rt_program_compile(mil, cache, 4, in_names, wrong, 2, out_names, out_bytes, 1)) return 1;
    ane_e5rt_program_release(program);
    ane_e5rt_program_release(NULL);
    puts("1 + 1 = 2");
    return 0;
}
