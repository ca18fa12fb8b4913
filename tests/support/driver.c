/* A driver library without a GPU: its device memory is this machine's. See tests/support/driver.py. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread int context;
static uint64_t reserved, high;

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { /* the first call takes the time, as the real one's does */
  static int done;
  if (!done++) sleep(number("INIT_S", 0));
  return number("INIT_ERROR", 0);
}
int cuGetErrorString(int code, const char **text) {
  *text = code == 2 ? "out of memory" : code == 802 ? "system not yet initialized" : "unknown";
  return 0;
}
int cuDeviceGetCount(int *count) { *count = number("GPUS_SEEN", 1); return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : 0;
  return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = i;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1 << 20; return 0; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = (void *)1; return 0; }
int cuCtxSetCurrent(void *made) { context = made == (void *)1; return context ? 0 : 201; }
int cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = &reserved; return 0; }
int cuMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) {
  if (pool != &reserved) return 1;
  *value = attribute == 6 ? high : attribute == 5 ? reserved : 0;
  return 0;
}
int cuMemPoolSetAttribute(void *pool, int attribute, uint64_t *value) {
  if (pool != &reserved || attribute != 6 || *value) return 1;
  high = reserved;
  return 0;
}
int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) {
  if (!context || stream != (void *)2) return 201;
  if (reserved + bytes > 1 << 20) return 2;
  size_t *block = malloc(sizeof(size_t) + bytes);
  *block = bytes;
  *address = (uint64_t)(block + 1);
  reserved += bytes;
  if (reserved > high) high = reserved;
  return 0;
}
int cuMemFreeAsync(uint64_t address, void *stream) {
  size_t *block = (size_t *)address - 1;
  if (!context) return 201;
  reserved -= *block;
  free(block);
  return 0;
}
int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t bytes, void *stream) {
  if (!context) return 201;
  memcpy((void *)target, (void *)source, bytes);
  return 0;
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  *total = 1 << 20;
  *free_bytes = *total - reserved;
  return context ? 0 : 201;
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  return cuMemAllocAsync(address, bytes, (void *)2);
}
int cuMemFree_v2(uint64_t address) { return cuMemFreeAsync(address, NULL); }
int cuStreamSynchronize(void *stream) { return stream == (void *)2 ? 0 : 1; }
