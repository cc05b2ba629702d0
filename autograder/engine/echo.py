def call_f(ns, arg, payload):
    return ns["f"](payload)
