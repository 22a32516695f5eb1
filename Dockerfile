# vbench with CUDA: docker build -t vbench . && docker run --rm --gpus all -v "$PWD:/work" vbench run quickstart
# The wheels of torch bring the CUDA libraries; only the driver comes from the host.
FROM python:3.12-slim
COPY . /opt/vbench
RUN pip install --no-cache-dir /opt/vbench && rm -rf /opt/vbench
WORKDIR /work
ENTRYPOINT ["vbench"]
