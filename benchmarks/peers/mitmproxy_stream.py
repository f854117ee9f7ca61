"""mitmproxy addon: pass answers on as they come instead of buffering them whole."""


def responseheaders(flow):
    flow.response.stream = True
