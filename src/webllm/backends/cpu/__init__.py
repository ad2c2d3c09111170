"""The CPU backend: a program becomes one array of ops (a plan), and C runs it in one call a step.

    backend                         loads a model, submits steps, reads results
    weights, formats                pack a checkpoint's tensors for the kernels
    plan, memory_plan, structs      lower the program to C structs, with every address in them
    kernels, auto                   the compiled kernels as Python sees them, native or in a browser
    native, native_library          the kernels as a native library
    system_memory                   how much memory a native process can still use
    browser, browser_*, thread.js   the kernels as a WebAssembly module, and its threads

The kernels are kernels.c and the headers that it lists.
"""
