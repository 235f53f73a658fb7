/* A GPU driver that executes nothing and writes down what a runtime asks of it.
 *
 * Built as libcuda.so, it stands where the vehicle's driver stands: the real runtime loads a payload through it. It
 * keeps every module image that it is handed (NN.image in the folder RECORDING), and one line per image and launch in
 * RECORDING/calls. Memory is the host's; kernels do nothing, so all results are zeros.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING(name) \
  int name(void) { return 0; }
#define HANDLE(name) \
  int name(void **out) { return handle(out); }
#define BOTH(kind, name) kind(name) kind(name##_v2)

enum { OK = 0, NOT_FOUND = 500, SECTION_WITHOUT_BITS = 8, PAGE = 256 };
typedef uint64_t Pointer;
typedef struct {
  char name[512];
} Function;

static int handle(void **out) {
  static intptr_t next = 4096;
  if (out) *out = (void *)(next += 16);
  return OK;
}

static FILE *record(const char *name, const char *mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("RECORDING"), name);
  FILE *file = fopen(path, mode);
  if (!file) abort();
  return file;
}

/* A driver is given an image without its length: ELF tells it, text ends with a zero. */
static uint64_t length(const unsigned char *image) {
  if (memcmp(image, "\177ELF", 4)) return strlen((const char *)image);
  uint64_t sections = *(uint64_t *)(image + 40), segments = *(uint64_t *)(image + 32);
  uint16_t each = *(uint16_t *)(image + 58), count = *(uint16_t *)(image + 60);
  uint64_t end = sections + each * count;
  uint64_t after = segments + (uint64_t)*(uint16_t *)(image + 54) * *(uint16_t *)(image + 56);
  if (after > end) end = after;
  for (int i = 0; i < count; i++) {
    const unsigned char *header = image + sections + (uint64_t)each * i;
    if (*(uint32_t *)(header + 4) == SECTION_WITHOUT_BITS) continue;
    uint64_t last = *(uint64_t *)(header + 24) + *(uint64_t *)(header + 32);
    if (last > end) end = last;
  }
  return end;
}

int cuModuleLoadDataEx(void **module, const unsigned char *image, unsigned count, int *options, void **values) {
  static int number;
  char name[32];
  uint64_t size = length(image);
  snprintf(name, sizeof name, "%03d.image", number++);
  FILE *file = record(name, "wb");
  fwrite(image, 1, size, file);
  fclose(file);
  file = record("calls", "a");
  fprintf(file, "image %s at %d\n", name, (int)((uintptr_t)image % 8));
  fclose(file);
  *module = (void *)image;
  return OK;
}

int cuModuleGetFunction(Function **function, const void *module, const char *name) {
  *function = calloc(1, sizeof(Function));
  strncpy((*function)->name, name, sizeof((*function)->name) - 1);
  return OK;
}

int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  FILE *file = record("calls", "a");
  fprintf(file, "launch %s grid %u,%u,%u block %u,%u,%u shared %u\n", function->name, gx, gy, gz, bx, by, bz, shared);
  fclose(file);
  return OK;
}

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  *function = dlsym(RTLD_DEFAULT, name);
  return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, void *status) {
  return cuGetProcAddress(name, function, version, flags);
}

int cuGetErrorName(int error, const char **text) { return *text = "RECORDED", OK; }
int cuGetErrorString(int error, const char **text) { return *text = "recorded", OK; }
int cuDriverGetVersion(int *version) { return *version = 12000, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = 0, OK; }
int cuDeviceGetCount(int *count) { return *count = 1, OK; }
int cuDeviceGetName(char *name, int size, int device) { return strncpy(name, "recording", size), OK; }
int cuDeviceGetUuid(char *uuid, int device) { return memset(uuid, 7, 16), OK; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  /* Threads per block and axis, compute capability 8.7, and Orin's shared memory per block; all else is there. */
  *value = attribute >= 1 && attribute <= 4 ? 1024 : attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 97 ? 166912 : 1;
  return OK;
}

int cuMemAlloc(Pointer *out, size_t size) {
  return *out = (Pointer)aligned_alloc(PAGE, (size + PAGE - 1) / PAGE * PAGE), OK;
}
int cuMemAlloc_v2(Pointer *out, size_t size) { return cuMemAlloc(out, size); }
int cuMemAllocManaged(Pointer *out, size_t size) { return cuMemAlloc(out, size); }
int cuMemAllocFromPoolAsync(Pointer *out, size_t size) { return cuMemAlloc(out, size); }
int cuMemHostAlloc(Pointer *out, size_t size) { return cuMemAlloc(out, size); }
int cuMemHostGetDevicePointer(Pointer *out, void *host) { return *out = (Pointer)host, OK; }
int cuMemHostGetDevicePointer_v2(Pointer *out, void *host) { return *out = (Pointer)host, OK; }
int cuMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) { return *value = 0, OK; }
int cuMemcpyAsync(Pointer to, Pointer from, size_t size) { return memcpy((void *)to, (void *)from, size), OK; }
int cuMemcpyHtoDAsync(Pointer to, Pointer from, size_t size) { return cuMemcpyAsync(to, from, size); }
int cuMemcpyHtoDAsync_v2(Pointer to, Pointer from, size_t size) { return cuMemcpyAsync(to, from, size); }
int cuMemsetD8Async(Pointer to, unsigned char value, size_t count) { return memset((void *)to, value, count), OK; }
int cuMemsetD16Async(Pointer to, unsigned short value, size_t count) { return memset((void *)to, value, 2 * count), OK; }
int cuMemsetD32Async(Pointer to, unsigned value, size_t count) { return memset((void *)to, value, 4 * count), OK; }
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) { return function(data), OK; }

BOTH(HANDLE, cuCtxCreate)
BOTH(HANDLE, cuCtxPopCurrent)
BOTH(HANDLE, cuGraphInstantiate)
HANDLE(cuDevicePrimaryCtxRetain)
HANDLE(cuEventCreate)
HANDLE(cuStreamCreate)
HANDLE(cuMemPoolCreate)
HANDLE(cuGraphCreate)
HANDLE(cuGraphAddEmptyNode)
HANDLE(cuGraphAddMemcpyNode)
HANDLE(cuGraphAddMemsetNode)
HANDLE(cuGraphAddKernelNode)
HANDLE(cuGraphAddEventRecordNode)
BOTH(NOTHING, cuDevicePrimaryCtxRelease)
BOTH(NOTHING, cuCtxDestroy)
BOTH(NOTHING, cuCtxPushCurrent)
BOTH(NOTHING, cuEventDestroy)
BOTH(NOTHING, cuMemFree)
BOTH(NOTHING, cuMemHostRegister)
BOTH(NOTHING, cuStreamDestroy)
NOTHING(cuInit)
NOTHING(cuCtxSetCurrent)
NOTHING(cuEventElapsedTime)
NOTHING(cuEventQuery)
NOTHING(cuEventRecord)
NOTHING(cuEventSynchronize)
NOTHING(cuFuncSetAttribute)
NOTHING(cuGraphDestroy)
NOTHING(cuGraphExecDestroy)
NOTHING(cuGraphGetNodes)
NOTHING(cuGraphLaunch)
NOTHING(cuMemFreeAsync)
NOTHING(cuMemFreeHost)
NOTHING(cuMemHostUnregister)
NOTHING(cuMemPoolDestroy)
NOTHING(cuMemPoolSetAccess)
NOTHING(cuMemPoolSetAttribute)
NOTHING(cuMemPoolTrimTo)
NOTHING(cuMemPrefetchAsync)
NOTHING(cuModuleGetGlobal)
NOTHING(cuModuleUnload)
NOTHING(cuStreamSynchronize)
NOTHING(cuStreamWaitEvent)
