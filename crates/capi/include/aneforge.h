/* Compiled models from C, and from whatever calls C: files that `aneforge compile -o model.aneforge` writes.
 *
 * This set stays as it is; what is added gets new names. Functions that return int give -1 after an error, those that return pointers
 * NULL, those that return size_t 0; aneforge_last_error() then has its text, and nothing is written to standard error.
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
 *
 * A null pointer where there must be none is an error. Undefined are: a model that is used after it was closed, or by two threads at
 * once; arrays with fewer elements than is said; texts without a zero byte at their end; views that are read or written while a run
 * goes on, or after the model was closed.
 */
#ifndef ANEFORGE_H
#define ANEFORGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct aneforge_model aneforge_model;

/* The library's version. */
const char *aneforge_version(void);

/* The text of this thread's last error, which stays until the next; empty if there was none. A call that succeeds does not clear it. */
const char *aneforge_last_error(void);

/* Loads a model onto the device "ane" or "host", in any case; another name is an error. NULL is the default, as described above. */
aneforge_model *aneforge_open(const char *path, const char *device);

/* Closes a model; NULL is closed already. */
void aneforge_close(aneforge_model *model);

/* Where each of its programs runs, such as "ane", "ane (stand-in)" or "host, host". It stays as long as the model; so do names. */
const char *aneforge_placement(aneforge_model *model);

/* Inputs and outputs, by number. Those without a name are called by their number. */
size_t aneforge_input_count(aneforge_model *model);
size_t aneforge_output_count(aneforge_model *model);
const char *aneforge_input_name(aneforge_model *model, size_t index);
const char *aneforge_output_name(aneforge_model *model, size_t index);

/* Writes the extents, of which there are at most `room`: how many there are. */
int aneforge_input_shape(aneforge_model *model, size_t index, size_t *dims, size_t room);
int aneforge_output_shape(aneforge_model *model, size_t index, size_t *dims, size_t room);

/* Gives an input values; `count` is how many it has. An input in half precision takes both: floats are rounded once, and bytes are the
 * numbers 0 to 255. An image of bytes takes bytes only. */
int aneforge_set(aneforge_model *model, size_t index, const float *values, size_t count);
int aneforge_set_bytes(aneforge_model *model, size_t index, const uint8_t *values, size_t count);

/* Runs once on what the inputs hold, and waits. */
int aneforge_run(aneforge_model *model);

/* Copies an output; `count` is how many values it has. */
int aneforge_get(aneforge_model *model, size_t index, float *values, size_t count);

/* Where half-precision values of ports lie (bytes, of an image), to be written before a run and read after one, without a copy. */
void *aneforge_input_view(aneforge_model *model, size_t index, size_t *bytes);
const void *aneforge_output_view(aneforge_model *model, size_t index, size_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
