/* Programs of MIL by the functions that ANEForge documents. Programs such as whisper.cpp load them by name from the library that
 * ANEFORGE_DYLIB names; libaneforge has them all.
 *
 * Errors are the text of aneforge_last_error(), and are written to standard error, where ANEForge's own library writes them, unless
 * ANEFORGE_QUIET is set.
 *
 * Environment variables, read when a program or a model is loaded; one that is empty counts as unset:
 *   ANEFORGE_DEVICE          the device, "ane" or "host", in any case; by default the engine on Apple silicon, where a failure is an
 *                            error, and the host elsewhere, which is said once on standard error
 *   ANEFORGE_ENGINE_LIBRARY  a library through which the engine is reached, such as the stand-in; the device is then "ane" unless
 *                            another is named
 *   ANEFORGE_CACHE_DIR       the folder in which compiled programs are kept (in `engine`); by default .cache/aneforge at home. They stay
 *                            there, for the next process; `aneforge cache gc` removes them
 *   ANEFORGE_ISOLATION       "process" (the default), or "worker": each program of a model runs in another process
 *   ANEFORGE_WORKER          the path of the program `aneforge`, which is that other process; where it is set, compiles are tried in one
 *   ANEFORGE_QUIET           set: nothing is written to standard error
 * Others, such as ANEFORGE_TARGET, count for the command line and Python only.
 * With ANEFORGE_ISOLATION=worker these functions are an error, as they hand out memory of this process.
 *
 * A null pointer where there must be none is an error. Undefined are: a program or a block that is used after it was released, or by
 * two threads at once; arrays with fewer elements than is said; texts without a zero byte at their end; buffers that are read or
 * written while a run goes on, or after the release. Outputs have no defined values before the first run, nor after one that failed.
 */
#ifndef ANE_E5RT_DISPATCH_H
#define ANE_E5RT_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ane_e5rt_program ane_e5rt_program;

/* The text of this thread's last error, which stays until the next; empty if there was none. */
const char *aneforge_last_error(void);

/* Compiles the text of MIL in the file `mil`, with weights.bin beside it, and loads it; what the compiler makes goes to `cache_dir`.
 * `mask` has the engine's bit, 4. Every input and output of the program is named, once, as in its text (`func main<ios18>(tensor<fp16,
 * [8]> NAME)` and `-> (NAME)`), in any order; sizes are bytes. NULL after an error. */
ane_e5rt_program *ane_e5rt_program_compile(const char *mil, const char *cache_dir, uint64_t mask,
                                           const char *const *in_names, const size_t *in_bytes, size_t n_in,
                                           const char *const *out_names, const size_t *out_bytes, size_t n_out);

/* Whether a program compiles: 0, or -1. `custom_options` is NULL, or "TargetArchitecture=" and a chip; -2 where the system cannot
 * compile for another one. */
int ane_e5rt_compile_check(const char *mil, const char *cache_dir, uint64_t mask, const char *custom_options);

/* Copies `count` half-precision values, at most as many as the port has. 0, or -1. */
int ane_e5rt_program_set_input_fp16(ane_e5rt_program *program, const char *port, const uint16_t *data, size_t count);
int ane_e5rt_program_set_input_fp16_op(ane_e5rt_program *program, size_t op, const char *port, const uint16_t *data,
                                       size_t count);

/* Copies as many half-precision values as both have. 0, or -1. */
int ane_e5rt_program_get_output_fp16(ane_e5rt_program *program, const char *port, uint16_t *data, size_t count);
int ane_e5rt_program_get_output_fp16_op(ane_e5rt_program *program, size_t op, const char *port, uint16_t *data,
                                        size_t count);

/* Where a port lies, and its bytes: written before a run, read after one, without a copy. 0, or -1. */
int ane_e5rt_program_input_buffer(ane_e5rt_program *program, const char *port, void **pointer, size_t *bytes);
int ane_e5rt_program_output_buffer(ane_e5rt_program *program, const char *port, void **pointer, size_t *bytes);

/* Runs every program of the stream once, in order, and waits. 0, or -1. */
int ane_e5rt_program_execute(ane_e5rt_program *program);
int ane_e5rt_program_execute_multi(ane_e5rt_program *program);

/* Gives an input the memory of an output, before the first run: state stays there. Seed it afterwards. 0, or -1. */
int ane_e5rt_program_share_buffer(ane_e5rt_program *program, size_t from_op, const char *output, size_t to_op,
                                  const char *input);

/* Releases a program; NULL is released already. */
void ane_e5rt_program_release(ane_e5rt_program *program);

/* Compiles another program of one input and one output onto the same stream: its number, or -1. */
int ane_e5rt_program_add_op(ane_e5rt_program *program, const char *mil, const char *input, size_t in_bytes,
                            const char *output, size_t out_bytes);
size_t ane_e5rt_program_get_op_count(ane_e5rt_program *program);

/* Makes program `after` wait for program `before`. 0, or -1. */
int ane_e5rt_program_chain_ops(ane_e5rt_program *program, size_t before, size_t after, const char *event_name);
int ane_e5rt_program_get_event_last_signaled(ane_e5rt_program *program, size_t op, uint64_t *value);
int ane_e5rt_program_get_chain_event_last_signaled(ane_e5rt_program *program, size_t op, uint64_t *value);

/* Starts every program, and waits for it: -2 where nothing was started. */
int ane_e5rt_program_execute_async(ane_e5rt_program *program);
int ane_e5rt_program_wait_for_completion(ane_e5rt_program *program);
int ane_e5rt_program_get_final_event_signaled(ane_e5rt_program *program, uint64_t *before, uint64_t *after);

/* A block that calls `call(context, 0)`, which is to be freed; NULL, and an error, where `call` is NULL. */
void *ane_e5rt_make_completion_block(void (*call)(void *context, int code), void *context);
void ane_e5rt_free_completion_block(void *block);

#ifdef __cplusplus
}
#endif

#endif
