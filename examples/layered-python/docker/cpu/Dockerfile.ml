ARG BASE_IMAGE
FROM ${BASE_IMAGE}

# Only this file: a change to the app's requirements must not reach this layer.
COPY requirements/ml.txt /tmp/requirements/ml.txt
RUN pip install -r /tmp/requirements/ml.txt
