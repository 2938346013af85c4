/* The short way through a watched function, for CPython 3.11 to 3.13 with its global lock.
 *
 * A watched function is a Python function: its code is the wrapper's, which is always right. This type is one of
 * functions too (a subtype with the same code, defaults, closure and attributes) and has a shortcut before that
 * code: while the countdown is above one, a call counts it down and goes to the wrapped function as it came.
 * Whatever is not that simple runs the wrapper's code.
 *
 * Rules kept here:
 * - The counters change where the interpreter can't switch threads: under its lock, with no call in between.
 * - A call whose arguments don't fit has not begun: it is counted neither as a call nor as an error.
 * - The shortcut is for what was wrapped as it was. Code or defaults that somebody sets on the wrapper or on the
 *   wrapped function have the wrapper's code run, for every call, so that no result depends on chance.
 * - A call that isn't as calls were before goes the long way as well, where the gate says what they were.
 * - A call on the last of its thread's stack ends as RecursionError, whichever way it would go: the interpreter's
 *   own limit counts calls and knows nothing of how large the stack is.
 * - Only the main interpreter is served, and only where there is a global lock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>
#if defined(_WIN32)
#include <windows.h>
#define _Thread_local __declspec(thread)
#elif defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#if defined(__FreeBSD__)
#include <pthread_np.h>
#endif
#endif

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "written for CPython 3.11 to 3.13: elsewhere the pure package serves"
#endif
#ifdef Py_GIL_DISABLED
#error "written for Python with a global lock: elsewhere the pure package serves"
#endif
#ifndef CORE_SOURCES
#error "the build says which sources the compiled core is of"
#endif

/* What is rarely needed stays out of the frame of a call, which a recursion has many of. */
#if defined(__GNUC__)
#define APART __attribute__((noinline))
#else
#define APART
#endif

#include "_entry.h"

/* A whole number that C and Python change; the attribute is named as that of the cells that it stands for. */
typedef struct {
    PyObject_HEAD
    long long value;
} Counter;

static PyObject *
counter_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {"value", NULL};
    long long value = 0;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|L:Counter", names, &value)) {
        return NULL;
    }
    Counter *self = (Counter *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->value = value;
    }
    return (PyObject *)self;
}

static PyMemberDef counter_members[] = {
    {"cell_contents", T_LONGLONG, offsetof(Counter, value), 0, "The number."},
    {NULL},
};

static PyTypeObject Counter_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cloister.immune._shortcut.Counter",
    .tp_doc = "A whole number of 64 bits that a watched function counts with.",
    .tp_basicsize = sizeof(Counter),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = counter_new,
    .tp_members = counter_members,
};

/* What a call of a function depends on beside its arguments, and what anybody can set. */
typedef struct {
    PyObject *code;
    PyObject *defaults;
    PyObject *named_defaults;
} Form;

typedef struct {
    PyFunctionObject wrapper;
    PyObject *function;
    /* What is wrapped, where it is a function that takes the wrapper's parameters; else the wrapper itself. */
    PyFunctionObject *inner;
    /* The wrapper's parameters, and always the long way. */
    PyObject *compared;
    Counter *left;
    Counter *errors;
    Entry *entry;
    Form form;
    PyObject *inner_code;
    vectorcallfunc whole;
    char counts_errors;
    char fits_exactly;
} Watched;

static PyTypeObject Watched_Type;

/* Whether the error that is set is of arguments that don't fit: raised before the function's frame. */
static int
didnt_fit(const Watched *self)
{
    if (!self->fits_exactly || !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return 0;
    }
    PyObject *trace;
#if PY_VERSION_HEX < 0x030C0000
    PyObject *type, *value;
    PyErr_Fetch(&type, &value, &trace);
    int before = trace == NULL;
    PyErr_Restore(type, value, trace);
#else
    PyObject *error = PyErr_GetRaisedException();
    trace = PyException_GetTraceback(error);
    int before = trace == NULL;
    Py_XDECREF(trace);
    PyErr_SetRaisedException(error);
#endif
    return before;
}

/* Take note of a call that ended with an error. */
static APART void
count_failure(const Watched *self)
{
    if (didnt_fit(self)) {
        if (self->left != NULL) {
            self->left->value++;
        }
    }
    else if (self->counts_errors && self->errors != NULL) {
        self->errors->value++;
    }
}

/* Whether neither the wrapper nor what it wraps was given other code or defaults since. */
static inline int
is_as_it_was(const Watched *self)
{
    const PyFunctionObject *wrapper = &self->wrapper, *inner = self->inner;
    return wrapper->func_defaults == self->form.defaults && inner->func_defaults == self->form.defaults
           && wrapper->func_kwdefaults == self->form.named_defaults
           && inner->func_kwdefaults == self->form.named_defaults && wrapper->func_code == self->form.code
           && inner->func_code == self->inner_code;
}

static inline PyObject *
passed_on(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Watched *self = (Watched *)callable;
    if (self->function == NULL || self->left->value <= 1 || !is_as_it_was(self)) {
        return self->whole(callable, args, nargsf, names);
    }
    if (self->entry->most >= 0 && !needs_no_judgement(self->entry, &self->wrapper, args, nargsf, names)) {
        return PyObject_Vectorcall(self->compared, args, nargsf, names);
    }
    self->left->value--;
    /* The call may let go of everything that holds this function. */
    Py_INCREF(callable);
    PyObject *result = PyObject_Vectorcall(self->function, args, nargsf, names);
    if (result == NULL) {
        count_failure(self);
    }
    Py_DECREF(callable);
    return result;
}

/* The stack of this thread: calls go on from `floor` on, as long as `room` is. Without room it isn't known. */
typedef struct {
    uintptr_t low;
    uintptr_t floor;
    uintptr_t room;
    int was_asked_for;
    int depth;
} Stack;

/* Read in every call: the model spares it a call, and glibc keeps room for so little. */
#if defined(__GLIBC__)
static _Thread_local Stack stack __attribute__((tls_model("initial-exec")));
#else
static _Thread_local Stack stack;
#endif

/* What is left of a stack for what a watched call runs that isn't one itself: a quarter, and at most this. */
#define MOST_LEFT ((uintptr_t)128 << 10)
/* On a stack whose end isn't known, so many watched calls may be inside of one another. */
#define DEPTH_WITHOUT_END 100

/* Where the stack of this thread begins and ends, as the system says; nothing where it doesn't. */
static void
ask_for_the_stack(void)
{
    uintptr_t low = 0, size = 0;
#if defined(_WIN32)
    ULONG_PTR lowest, highest;
    GetCurrentThreadStackLimits(&lowest, &highest);
    low = lowest;
    size = highest - lowest;
#elif defined(__APPLE__)
    size = pthread_get_stacksize_np(pthread_self());
    low = (uintptr_t)pthread_get_stackaddr_np(pthread_self()) - size;
#elif defined(__linux__) || defined(__FreeBSD__)
    pthread_attr_t found;
    void *start;
    size_t whole, guard;
#if defined(__linux__)
    int failed = pthread_getattr_np(pthread_self(), &found);
#else
    int failed = pthread_attr_init(&found);
    if (!failed && pthread_attr_get_np(pthread_self(), &found) != 0) {
        pthread_attr_destroy(&found);
        failed = 1;
    }
#endif
    if (!failed) {
        if (pthread_attr_getstack(&found, &start, &whole) == 0 && pthread_attr_getguardsize(&found, &guard) == 0
            && guard < whole) {
            low = (uintptr_t)start + guard;
            size = whole - guard;
        }
        pthread_attr_destroy(&found);
    }
#endif
    uintptr_t kept = size / 4 < MOST_LEFT ? size / 4 : MOST_LEFT;
    stack.low = low;
    stack.floor = low + kept;
    stack.room = size - kept;
    stack.was_asked_for = 1;
}

static PyObject *
too_deep(void)
{
    PyErr_SetString(PyExc_RecursionError, "maximum recursion depth of watched functions exceeded");
    return NULL;
}

/* A call near the end of its stack, on another stack than its thread's, or the first of its thread. */
static APART PyObject *
call_at_the_edge(uintptr_t here, PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (!stack.was_asked_for) {
        ask_for_the_stack();
        if (here - stack.floor < stack.room) {
            return passed_on(callable, args, nargsf, names);
        }
    }
    if (here - stack.low < stack.floor - stack.low || stack.depth >= DEPTH_WITHOUT_END) {
        return too_deep();
    }
    stack.depth++;
    PyObject *result = passed_on(callable, args, nargsf, names);
    stack.depth--;
    return result;
}

static PyObject *
watched_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    char here;
    if ((uintptr_t)&here - stack.floor >= stack.room) {
        return call_at_the_edge((uintptr_t)&here, callable, args, nargsf, names);
    }
    return passed_on(callable, args, nargsf, names);
}

static int
watched_traverse(PyObject *one, visitproc visit, void *arg)
{
    Watched *self = (Watched *)one;
    Py_VISIT(self->function);
    Py_VISIT(self->compared);
    Py_VISIT(self->entry);
    Py_VISIT(self->form.code);
    Py_VISIT(self->form.defaults);
    Py_VISIT(self->form.named_defaults);
    Py_VISIT(self->inner_code);
    return PyFunction_Type.tp_traverse(one, visit, arg);
}

/* Without a function the shortcut is closed: what was of it is no longer read. */
static void
let_go(Watched *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->form.code);
    Py_CLEAR(self->form.defaults);
    Py_CLEAR(self->form.named_defaults);
    Py_CLEAR(self->inner_code);
}

static int
watched_clear(PyObject *one)
{
    Watched *self = (Watched *)one;
    let_go(self);
    return PyFunction_Type.tp_clear(one);
}

static void
watched_dealloc(PyObject *one)
{
    Watched *self = (Watched *)one;
    PyObject_GC_UnTrack(one);
    let_go(self);
    Py_CLEAR(self->compared);
    Py_CLEAR(self->left);
    Py_CLEAR(self->errors);
    Py_CLEAR(self->entry);
    /* The function's own end takes it out of the collector's list again. */
    PyObject_GC_Track(one);
    PyFunction_Type.tp_dealloc(one);
}

static PyObject *
watched_reduce(PyObject *one, PyObject *Py_UNUSED(nothing))
{
    return Py_NewRef(((PyFunctionObject *)one)->func_qualname);
}

/* A type has a text of its own; of a function it is the function's that counts. */
static PyMemberDef watched_members[] = {
    {"__doc__", T_OBJECT, offsetof(PyFunctionObject, func_doc), 0, NULL},
    {NULL},
};

static PyMethodDef watched_methods[] = {
    {"__reduce__", watched_reduce, METH_NOARGS, "Pickled by name, as any function."},
    {NULL},
};

static PyTypeObject Watched_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cloister.immune._shortcut.watched_function",
    .tp_basicsize = sizeof(Watched),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR
                | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_base = &PyFunction_Type,
    .tp_vectorcall_offset = offsetof(PyFunctionObject, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_traverse = watched_traverse,
    .tp_clear = watched_clear,
    .tp_dealloc = watched_dealloc,
    .tp_methods = watched_methods,
    .tp_members = watched_members,
};

PyDoc_STRVAR(shorten_doc,
"shorten(wrapper, compared, function, left, errors, entry, counts_errors, fits_exactly)\n--\n\n"
"The wrapper with a shortcut to what it wraps.\n\n"
"Args:\n"
"    wrapper: a Python function.\n"
"    compared: one of the same parameters, for calls that aren't as the entry says that they are.\n"
"    function: what it wraps; any callable.\n"
"    left: a `Counter`; above one a call counts it down and goes to the function.\n"
"    errors: a `Counter` of what such calls raised.\n"
"    entry: what a call looks like that needs no judgement.\n"
"    counts_errors: whether these are counted.\n"
"    fits_exactly: whether the function takes exactly the wrapper's parameters.\n");

static PyObject *
shorten(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyFunctionObject *wrapper;
    PyObject *compared, *function;
    Counter *left, *errors;
    Entry *entry;
    int counts_errors, fits_exactly;
    if (!PyArg_ParseTuple(args, "O!O!OO!O!O!pp:shorten", &PyFunction_Type, &wrapper, &PyFunction_Type, &compared,
                          &function, &Counter_Type, &left, &Counter_Type, &errors, &Entry_Type, &entry,
                          &counts_errors, &fits_exactly)) {
        return NULL;
    }
    if (Py_TYPE(wrapper) != &PyFunction_Type) {
        PyErr_SetString(PyExc_TypeError, "a wrapper has one shortcut");
        return NULL;
    }
    if (!PyCallable_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "what is wrapped can be called");
        return NULL;
    }
    Watched *self = (Watched *)PyType_GenericAlloc(&Watched_Type, 0);
    if (self == NULL) {
        return NULL;
    }
    PyFunctionObject *made = &self->wrapper;
    made->func_globals = Py_NewRef(wrapper->func_globals);
    made->func_builtins = Py_NewRef(wrapper->func_builtins);
    made->func_name = Py_NewRef(wrapper->func_name);
    made->func_qualname = Py_NewRef(wrapper->func_qualname);
    made->func_code = Py_NewRef(wrapper->func_code);
    made->func_defaults = Py_XNewRef(wrapper->func_defaults);
    made->func_kwdefaults = Py_XNewRef(wrapper->func_kwdefaults);
    made->func_closure = Py_XNewRef(wrapper->func_closure);
    made->func_doc = Py_XNewRef(wrapper->func_doc);
    made->func_dict = NULL;
    made->func_module = Py_XNewRef(wrapper->func_module);
    made->func_annotations = Py_XNewRef(wrapper->func_annotations);
#if PY_VERSION_HEX >= 0x030C0000
    made->func_typeparams = Py_XNewRef(wrapper->func_typeparams);
#endif
    made->vectorcall = watched_call;
    made->func_version = 0;
    self->function = Py_NewRef(function);
    self->compared = Py_NewRef(compared);
    self->left = (Counter *)Py_NewRef(left);
    self->errors = (Counter *)Py_NewRef(errors);
    self->entry = (Entry *)Py_NewRef(entry);
    self->inner = made;
    if (fits_exactly && PyObject_TypeCheck(function, &PyFunction_Type)) {
        self->inner = (PyFunctionObject *)function;
    }
    self->form.code = Py_NewRef(wrapper->func_code);
    self->form.defaults = Py_XNewRef(wrapper->func_defaults);
    self->form.named_defaults = Py_XNewRef(wrapper->func_kwdefaults);
    self->inner_code = Py_NewRef(self->inner->func_code);
    self->whole = wrapper->vectorcall;
    self->counts_errors = (char)counts_errors;
    self->fits_exactly = (char)fits_exactly;
    return (PyObject *)self;
}

static PyMethodDef methods[] = {
    {"shorten", shorten, METH_VARARGS, shorten_doc},
    {NULL},
};

static int
execute(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "the compiled core serves the main interpreter only");
        return -1;
    }
    if (PyType_Ready(&Watched_Type) < 0) {
        return -1;
    }
    if (PyModule_AddType(module, &Counter_Type) < 0 || PyModule_AddType(module, &Entry_Type) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "SOURCES", CORE_SOURCES);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cloister.immune._shortcut",
    .m_doc = "The short way through a watched function.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__shortcut(void)
{
    return PyModuleDef_Init(&definition);
}
