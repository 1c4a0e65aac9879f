# The moderation service on CPUs: docker build -t visxai-service . && docker run -p 127.0.0.1:8000:8000 visxai-service
FROM python:3.12-slim

RUN useradd --create-home --uid 10001 visxai \
    && python -m venv /opt/visxai \
    && mkdir --parents /srv/visxai/data \
    && chown --recursive visxai /srv/visxai
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY visxai visxai
COPY models models
# opencv-python needs libraries of a desktop; the headless build of the same version has the same module.
RUN /opt/visxai/bin/pip install --no-cache-dir ".[serve,hf,tables]" \
    && version=$(/opt/visxai/bin/pip show opencv-python | sed -n 's/^Version: //p') \
    && /opt/visxai/bin/pip uninstall --yes opencv-python \
    && /opt/visxai/bin/pip install --no-cache-dir "opencv-python-headless==$version" \
    && rm -rf /src

ENV PATH=/opt/visxai/bin:$PATH PYTHONUNBUFFERED=1
USER visxai
WORKDIR /srv/visxai
ENTRYPOINT ["visxai"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--data", "data"]
