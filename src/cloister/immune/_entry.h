/* What a call looks like that needs no judgement: no larger than others were, and called by who called before.
 *
 * Every call is compared, where that is paid for: the sizes of its arguments, as `size_of` of the package counts
 * them, and the code of the frame that called. Whoever doubts goes the long way, which compares exactly.
 *
 * Rules kept here:
 * - Nothing here runs foreign code: sizes are read of exact builtin types, and code is told apart by identity.
 * - A code that is known is held, so that no other takes its identity.
 * - Calls beyond the bounds take from an allowance, where there is one: a caller that is new and stays would have
 *   each of its calls judged otherwise, for many times the budget.
 */
#define Py_BUILD_CORE
#include <internal/pycore_frame.h>
#undef Py_BUILD_CORE

#define KNOWN_CODES 16

typedef struct {
    PyObject_HEAD
    /* The largest usual size; below zero nothing is compared. */
    long long most;
    /* How many calls beyond the bounds are still to be judged; below zero each is. */
    long long allowance;
    /* Whether only sizes are compared: there are more callers than are told apart. */
    char anyone;
    unsigned char newest;
    PyObject *codes[KNOWN_CODES];
} Entry;

static PyObject *
entry_know(PyObject *one, PyObject *code)
{
    Entry *self = (Entry *)one;
    for (int at = 0; at < KNOWN_CODES; at++) {
        if (self->codes[at] == code) {
            Py_RETURN_NONE;
        }
    }
    self->newest = (unsigned char)((self->newest + 1) % KNOWN_CODES);
    /* Where another has to give way, more codes call in turns than are told apart: that is paid for. */
    if (self->allowance >= 0 && self->codes[self->newest] == NULL) {
        self->allowance++;
    }
    Py_XSETREF(self->codes[self->newest], Py_NewRef(code));
    Py_RETURN_NONE;
}

static void
forget_codes(Entry *self)
{
    for (int at = 0; at < KNOWN_CODES; at++) {
        Py_CLEAR(self->codes[at]);
    }
}

static PyObject *
entry_forget(PyObject *one, PyObject *Py_UNUSED(nothing))
{
    Entry *self = (Entry *)one;
    self->most = -1;
    forget_codes(self);
    Py_RETURN_NONE;
}

static int
entry_traverse(PyObject *one, visitproc visit, void *arg)
{
    Entry *self = (Entry *)one;
    for (int at = 0; at < KNOWN_CODES; at++) {
        Py_VISIT(self->codes[at]);
    }
    return 0;
}

static int
entry_clear(PyObject *one)
{
    forget_codes((Entry *)one);
    return 0;
}

static void
entry_dealloc(PyObject *one)
{
    PyObject_GC_UnTrack(one);
    forget_codes((Entry *)one);
    Py_TYPE(one)->tp_free(one);
}

static PyObject *
entry_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, named, ":Entry", names)) {
        return NULL;
    }
    Entry *self = (Entry *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->most = -1;
    }
    return (PyObject *)self;
}

static PyMemberDef entry_members[] = {
    {"most", T_LONGLONG, offsetof(Entry, most), 0, "The largest usual size; below zero nothing is compared."},
    {"allowance", T_LONGLONG, offsetof(Entry, allowance), 0,
     "How many calls beyond the bounds are still to be judged; below zero each is."},
    {"anyone", T_BOOL, offsetof(Entry, anyone), 0, "Whether only sizes are compared."},
    {NULL},
};

static PyMethodDef entry_methods[] = {
    {"know", entry_know, METH_O, "Take note of the code of a caller that is known, whose call was a usual one."},
    {"forget", entry_forget, METH_NOARGS, "Compare nothing, and know nobody."},
    {NULL},
};

static PyTypeObject Entry_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cloister.immune._shortcut.Entry",
    .tp_doc = "What a call looks like that needs no judgement.",
    .tp_basicsize = sizeof(Entry),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = entry_new,
    .tp_members = entry_members,
    .tp_methods = entry_methods,
    .tp_traverse = entry_traverse,
    .tp_clear = entry_clear,
    .tp_dealloc = entry_dealloc,
};

/* As `size_of` counts: the length of exact builtin types, one for anything else. */
static inline Py_ssize_t
size_of(PyObject *one)
{
    PyTypeObject *type = Py_TYPE(one);
    if (type == &PyUnicode_Type) {
        return PyUnicode_GET_LENGTH(one);
    }
    if (type == &PyList_Type || type == &PyTuple_Type || type == &PyBytes_Type || type == &PyByteArray_Type) {
        return Py_SIZE(one);
    }
    if (type == &PyDict_Type) {
        return ((PyDictObject *)one)->ma_used;
    }
    if (type == &PySet_Type || type == &PyFrozenSet_Type) {
        return ((PySetObject *)one)->used;
    }
    return 1;
}

static inline int
is_named(PyObject *name, PyObject *names)
{
    if (names != NULL) {
        for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(names); at++) {
            if (PyTuple_GET_ITEM(names, at) == name) {
                return 1;
            }
        }
    }
    return 0;
}

/* The size of the defaults that a call leaves as they are; a name that isn't interned may count one too many. */
static Py_ssize_t
size_of_defaults(const PyFunctionObject *function, Py_ssize_t given, PyObject *names)
{
    PyCodeObject *code = (PyCodeObject *)function->func_code;
    Py_ssize_t size = 0;
    if (function->func_defaults != NULL) {
        Py_ssize_t first = code->co_argcount - PyTuple_GET_SIZE(function->func_defaults);
        for (Py_ssize_t at = given > first ? given : first; at < code->co_argcount; at++) {
            if (!is_named(PyTuple_GET_ITEM(code->co_localsplusnames, at), names)) {
                size += size_of(PyTuple_GET_ITEM(function->func_defaults, at - first));
            }
        }
    }
    if (function->func_kwdefaults != NULL) {
        Py_ssize_t place = 0;
        PyObject *name, *value;
        while (PyDict_Next(function->func_kwdefaults, &place, &name, &value)) {
            if (!is_named(name, names)) {
                size += size_of(value);
            }
        }
    }
    return size;
}

/* The code of the Python frame that runs; borrowed, and nothing where there is none. */
static inline PyObject *
calling_code(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    struct _PyInterpreterFrame *frame = PyThreadState_GET()->current_frame;
    while (frame != NULL && frame->owner == FRAME_OWNED_BY_CSTACK) {
        frame = frame->previous;
    }
    return frame == NULL ? NULL : frame->f_executable;
#else
    struct _PyInterpreterFrame *frame = PyThreadState_GET()->cframe->current_frame;
#if PY_VERSION_HEX >= 0x030C0000
    while (frame != NULL && frame->owner == FRAME_OWNED_BY_CSTACK) {
        frame = frame->previous;
    }
#endif
    return frame == NULL ? NULL : (PyObject *)frame->f_code;
#endif
}

/* Whether a call goes on without a judgement: it is a usual one, or the allowance is used up. */
static APART int
needs_no_judgement(Entry *self, const PyFunctionObject *function, PyObject *const *args, size_t nargsf,
                   PyObject *names)
{
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    Py_ssize_t count = given + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    Py_ssize_t size = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        size += size_of(args[at]);
    }
    if (function->func_defaults != NULL || function->func_kwdefaults != NULL) {
        size += size_of_defaults(function, given, names);
    }
    if (size <= self->most) {
        if (self->anyone) {
            return 1;
        }
        PyObject *code = calling_code();
        for (int at = 0; code != NULL && at < KNOWN_CODES; at++) {
            if (self->codes[at] == code) {
                return 1;
            }
        }
    }
    if (self->allowance > 0) {
        self->allowance--;
        return 0;
    }
    return self->allowance == 0;
}
