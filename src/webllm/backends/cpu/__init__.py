"""The CPU backend: a program becomes one array of ops (a plan), and C runs it in one call a step.

backend                          loads a model, submits steps, reads results
weights, formats                 packs a checkpoint's tensors for the kernels
plan, memory_plan, structs       lowers the program to C's structs, every address filled in
kernels, auto                    the compiled kernels as Python sees them; the choice of host
native, native_library           the kernels as a native library, system_memory what fits
browser, browser_*, thread.js    the kernels as a WebAssembly module, its threads
kernels.c and headers            the kernels; see the list in kernels.c
"""
