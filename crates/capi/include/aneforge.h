/* Compiled models from C, and from whatever calls C: files that `aneforge compile -o model.aneforge` writes.
 *
 * This set stays as it is; what is added gets new names. Functions that return int give -1 after an error, those that return pointers
 * NULL; aneforge_last_error() then has its text. A model is used from one thread at a time.
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

/* The text of this thread's last error, which stays until the next; empty if there was none. */
const char *aneforge_last_error(void);

/* Loads a model onto "ane" or "host"; NULL is the default: what ANEFORGE_DEVICE names, else the engine on Apple silicon, where a
 * failure is an error, and the host elsewhere. */
aneforge_model *aneforge_open(const char *path, const char *device);

/* Closes a model; NULL is closed already. */
void aneforge_close(aneforge_model *model);

/* Where each of its programs runs, such as "ane" or "host, host". It stays as long as the model; so do names. */
const char *aneforge_placement(aneforge_model *model);

/* Inputs and outputs, by number. Those without a name are called by their number. */
size_t aneforge_input_count(aneforge_model *model);
size_t aneforge_output_count(aneforge_model *model);
const char *aneforge_input_name(aneforge_model *model, size_t index);
const char *aneforge_output_name(aneforge_model *model, size_t index);

/* Writes the extents, of which there are at most `room`: how many there are. */
int aneforge_input_shape(aneforge_model *model, size_t index, size_t *dims, size_t room);
int aneforge_output_shape(aneforge_model *model, size_t index, size_t *dims, size_t room);

/* Gives an input values, rounded to half precision once; `count` is how many it has. The second is for images of bytes. */
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
