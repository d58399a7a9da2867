/* A libcuda.so.1 that does nothing and counts: what the host spends on launches can be measured where there is no card.

   Memory is the host's, copies are done at once, kernels never run.  The device says that it is of compute capability
   9.0 with the resources of that generation.  Functions are those that numba-cuda, cuda-core and cuda-bindings ask for;
   what is missing is "not found" to them.  Built and used by host_time.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };
enum { DRIVER_VERSION = 13000, DEVICE_MEMORY_GIB = 80 };

typedef int Status;
typedef void *Handle;

static char context; /* its address is the one context there is */
static uintptr_t handles = 0x1000;
static long launches, copies, waits;

static Handle fresh(void) { return (Handle)(handles += 16); }

long null_launches(void) { return launches; }
long null_copies(void) { return copies; }
long null_waits(void) { return waits; }

#define NOTHING(name, ...) \
    Status name(__VA_ARGS__) { return OK; }
#define GIVES(name, type, value, ...)    \
    Status name(type *out, ##__VA_ARGS__) { \
        if (out) *out = (value);          \
        return OK;                        \
    }

/* the driver and its device */
NOTHING(cuInit, unsigned flags)
GIVES(cuDriverGetVersion, int, DRIVER_VERSION)
GIVES(cuDeviceGetCount, int, 1)
GIVES(cuDeviceGet, int, 0, int number)
GIVES(cuDeviceTotalMem_v2, size_t, (size_t)DEVICE_MEMORY_GIB << 30, int device)
GIVES(cuDeviceGetP2PAttribute, int, 0, int attribute, int source, int target)
GIVES(cuDeviceGetDefaultMemPool, Handle, &context, int device)
GIVES(cuDeviceGetMemPool, Handle, &context, int device)

Status cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "null device");
    return OK;
}

Status cuDeviceGetUuid_v2(void *uuid, int device) {
    memset(uuid, 1, 16);
    return OK;
}
Status cuDeviceGetUuid(void *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

Status cuDeviceGetAttribute(int *out, int attribute, int device) {
    static const int known[][2] = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, /* threads of a block, in all and along each axis */
        {5, 2147483647}, {6, 65535}, {7, 65535},  /* blocks along each axis of a grid */
        {8, 49152}, {81, 233472}, {97, 232448},   /* shared memory of a block, of a multiprocessor, at most by opt-in */
        {10, 32}, {12, 65536}, {39, 2048},        /* warp, registers, threads of a multiprocessor */
        {16, 132}, {20, 0},                       /* multiprocessors, compute mode */
        {75, 9}, {76, 0},                         /* compute capability */
    };
    *out = 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i][0] == attribute) *out = known[i][1];
    return OK;
}

/* contexts: one, always current */
GIVES(cuDevicePrimaryCtxRetain, Handle, &context, int device)
NOTHING(cuDevicePrimaryCtxRelease_v2, int device)
NOTHING(cuDevicePrimaryCtxSetFlags_v2, int device, unsigned flags)
GIVES(cuCtxGetCurrent, Handle, &context)
NOTHING(cuCtxSetCurrent, Handle which)
NOTHING(cuCtxPushCurrent_v2, Handle which)
GIVES(cuCtxPopCurrent_v2, Handle, &context)
GIVES(cuCtxGetDevice, int, 0)
GIVES(cuCtxGetDevice_v2, int, 0, Handle which)
Status cuCtxSynchronize(void) {
    waits++;
    return OK;
}
Status cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return OK;
}
Status cuCtxGetApiVersion(Handle which, unsigned *version) {
    *version = 3020;
    return OK;
}

/* memory: the host's */
Status cuMemGetInfo_v2(size_t *unused, size_t *total) {
    *unused = *total = (size_t)DEVICE_MEMORY_GIB << 30;
    return OK;
}
Status cuMemAlloc_v2(Handle *out, size_t size) {
    return posix_memalign(out, 512, size ? size : 1) ? OUT_OF_MEMORY : OK;
}
Status cuMemAllocAsync(Handle *out, size_t size, Handle stream) { return cuMemAlloc_v2(out, size); }
Status cuMemHostAlloc(Handle *out, size_t size, unsigned flags) { return cuMemAlloc_v2(out, size); }
Status cuMemFree_v2(Handle memory) {
    free(memory);
    return OK;
}
Status cuMemFreeAsync(Handle memory, Handle stream) { return cuMemFree_v2(memory); }
Status cuMemFreeHost(Handle memory) { return cuMemFree_v2(memory); }

static Status copied(Handle to, const void *from, size_t size) {
    copies++;
    memcpy(to, from, size);
    return OK;
}
Status cuMemcpyHtoD_v2(Handle to, const void *from, size_t size) { return copied(to, from, size); }
Status cuMemcpyDtoH_v2(Handle to, const void *from, size_t size) { return copied(to, from, size); }
Status cuMemcpyHtoDAsync_v2(Handle to, const void *from, size_t size, Handle stream) { return copied(to, from, size); }
Status cuMemcpyDtoHAsync_v2(Handle to, const void *from, size_t size, Handle stream) { return copied(to, from, size); }
Status cuMemcpyDtoDAsync_v2(Handle to, const void *from, size_t size, Handle stream) { return copied(to, from, size); }
Status cuMemcpyAsync(Handle to, const void *from, size_t size, Handle stream) { return copied(to, from, size); }

Status cuMemGetAddressRange_v2(Handle *base, size_t *size, Handle memory) {
    *base = memory;
    *size = (size_t)1 << 30;
    return OK;
}
Status cuPointerGetAttribute(void *out, int attribute, Handle memory) {
    enum { CONTEXT = 1, MEMORY_TYPE = 2, DEVICE_POINTER = 3, ORDINAL = 9, ON_DEVICE = 2 };
    switch (attribute) {
        case CONTEXT: *(Handle *)out = &context; break;
        case MEMORY_TYPE: *(int *)out = ON_DEVICE; break;
        case ORDINAL: *(int *)out = 0; break;
        default: *(Handle *)out = memory;
    }
    return OK;
}
Status cuPointerGetAttributes(unsigned n, int *attributes, Handle *out, Handle memory) {
    for (unsigned i = 0; i < n; i++) cuPointerGetAttribute(out[i], attributes[i], memory);
    return OK;
}
Status cuMemPoolGetAttribute(Handle pool, int attribute, uint64_t *out) {
    *out = 0;
    return OK;
}
NOTHING(cuMemPoolSetAttribute, Handle pool, int attribute, void *value)

/* streams and events: everything has happened */
GIVES(cuStreamCreate, Handle, fresh(), unsigned flags)
GIVES(cuStreamCreateWithPriority, Handle, fresh(), unsigned flags, int priority)
NOTHING(cuStreamDestroy_v2, Handle stream)
NOTHING(cuStreamQuery, Handle stream)
NOTHING(cuStreamWaitEvent, Handle stream, Handle event, unsigned flags)
Status cuStreamSynchronize(Handle stream) {
    waits++;
    return OK;
}
#define OF_STREAM(name, type, value)          \
    Status name(Handle stream, type *out) { \
        *out = (value);                     \
        return OK;                          \
    }
OF_STREAM(cuStreamGetCtx, Handle, &context)
OF_STREAM(cuStreamGetDevice, int, 0)
OF_STREAM(cuStreamGetFlags, unsigned, 0)
OF_STREAM(cuStreamGetPriority, int, 0)
OF_STREAM(cuStreamIsCapturing, int, 0)
Status cuStreamGetCtx_v2(Handle stream, Handle *out, Handle *green) {
    *out = &context;
    if (green) *green = NULL;
    return OK;
}
GIVES(cuEventCreate, Handle, fresh(), unsigned flags)
NOTHING(cuEventRecord, Handle event, Handle stream)
NOTHING(cuEventDestroy_v2, Handle event)
NOTHING(cuEventQuery, Handle event)
Status cuEventSynchronize(Handle event) {
    waits++;
    return OK;
}

/* code: every library has one kernel, every kernel is its library */
GIVES(cuModuleLoadDataEx, Handle, fresh(), const void *image, unsigned n, void *options, void *values)
GIVES(cuModuleLoadData, Handle, fresh(), const void *image)
NOTHING(cuModuleUnload, Handle module)
GIVES(cuModuleGetFunction, Handle, module, Handle module, const char *name)
GIVES(cuLibraryLoadData, Handle, fresh(), const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned k)
NOTHING(cuLibraryUnload, Handle library)
GIVES(cuLibraryGetKernel, Handle, library, Handle library, const char *name)
GIVES(cuLibraryGetModule, Handle, library, Handle library)
GIVES(cuLibraryGetKernelCount, unsigned, 1, Handle library)
GIVES(cuKernelGetFunction, Handle, kernel, Handle kernel)
GIVES(cuKernelGetLibrary, Handle, kernel, Handle kernel)
GIVES(cuKernelGetName, const char *, "kernel", Handle kernel)
GIVES(cuKernelGetAttribute, int, 32, int attribute, Handle kernel, int device)
NOTHING(cuKernelSetAttribute, int attribute, int value, Handle kernel, int device)
GIVES(cuFuncGetAttribute, int, 32, int attribute, Handle function)
NOTHING(cuFuncSetAttribute, Handle function, int attribute, int value)
GIVES(cuFuncGetModule, Handle, function, Handle function)
GIVES(cuFuncGetName, const char *, "kernel", Handle function)
GIVES(cuOccupancyMaxActiveBlocksPerMultiprocessor, int, 8, Handle function, int block, size_t shared)
Status cuLibraryEnumerateKernels(Handle *out, unsigned n, Handle library) {
    if (n) out[0] = library;
    return OK;
}
Status cuKernelGetParamInfo(Handle kernel, size_t index, size_t *offset, size_t *size) { return 1; }

Status cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Handle stream, void **arguments, void **extra) {
    launches++;
    return OK;
}
Status cuLaunchKernelEx(const void *how, Handle function, void **arguments, void **extra) {
    launches++;
    return OK;
}

NOTHING(cuProfilerStart, void)
NOTHING(cuProfilerStop, void)
Status cuGetErrorName(Status error, const char **out) {
    *out = "NULL_DRIVER";
    return OK;
}
Status cuGetErrorString(Status error, const char **out) {
    *out = "an error of the driver that does nothing";
    return OK;
}
Status cuGetExportTable(const void **table, const void *id) { return NOT_FOUND; }

/* how the libraries find all of these: by name, of the newest version that is here */
Status cuGetProcAddress_v2(const char *name, Handle *out, int version, uint64_t flags, int *found) {
    static Handle self;
    char versioned[128];
    if (!self) self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *out = dlsym(self ? self : RTLD_DEFAULT, versioned);
    if (!*out) *out = dlsym(self ? self : RTLD_DEFAULT, name);
    if (!strcmp(name, "cuGetProcAddress")) *out = (Handle)cuGetProcAddress_v2;
    if (found) *found = *out ? 0 : 1;
    return *out ? OK : NOT_FOUND;
}
Status cuGetProcAddress(const char *name, Handle *out, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, out, version, flags, NULL);
}
